"""A binary layer as the numbers that inference needs, computed in two ways.

    x ─┬─ front ─ x >= threshold ─ dot, Sa ─ A * dot + C * Sa + ((E * Sw + F * n) + B) ─ norm ─ (+) ─ activation
       └───────────────────────────────────── shortcut ─────────────────────────────────────────┘

The formula, its sums and the order in which it is rounded are those of `kernels.reference`. Everything that was
an affine map of a channel (scales, bias, BatchNorm) is in A, C and B; `front`, `norm`, `shortcut` and `activation`
are what is left in float, and mostly missing. A layer with float inputs has no threshold, and dot = sum of x * w.

    FrozenLayer   keeps one byte a sign and computes in plain torch: exact sums in float32, then the formula
    PackedLayer   keeps one bit a sign, the canonical stream, and computes with the operators of `kernels.operators`

Both give the same bits. They are made for inference: neither has a gradient.

form.py   the numbers of a frozen layer but its signs
layer.py  `FrozenLayer`; `PackedLayer` is in ../layers.py
"""

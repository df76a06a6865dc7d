"""Layers and rules -> plan. No tensor is touched here.

activations.py  which activations stand in front of a sign, and what becomes of them
cost.py         MACs, FLOPs, BOPs, OPs and bytes of a plan
edits.py        from changes to named edits
homes.py        where new activations hang that only the graph can reach
layer_parts.py  what the plan says of the parts of one layer
make.py         layers x RuleSet -> Plan
parts.py        what each binary layer carries
plan.py         the plan: one decision with a reason per layer, and the resolved edits
shortcuts.py    where real values go around binary layers
thresholds.py   what the parameters of a model tell about the values in front of a layer
record/         what a plan records beside its decisions: edits, origins
"""

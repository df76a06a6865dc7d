"""Layers and rules -> plan. No tensor is touched here.

activations.py  which activations stand in front of a sign, and what becomes of them
advice.py       what one might want to try
cost.py         MACs, FLOPs, BOPs, OPs and bytes of a plan
decision.py     what happens to one layer, and why
edits.py        from changes to named edits
make.py         layers x RuleSet -> Plan
plan.py         the plan: one decision with a reason per layer, and the resolved edits
positions.py    which nonlinearities stand in front of an add
shortcuts.py    where real values go around binary layers
thresholds.py   what the parameters of a model tell about the values in front of a layer
parts/          what each binary layer carries, and what is put in front of float ones
record/         what a plan records beside its decisions: edits, origins, capture
"""

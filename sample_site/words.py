"""Lines of poems for import_module.rpy. Add some, and save: the page refreshes."""

BEGINNINGS = ["Morning fog", "A late moon", "Rain on slate", "Thin blue smoke", "The first frost"]
MIDDLES = [
    "walks the empty quay",
    "leans against the barn",
    "counts the fallen pears",
    "wakes the sleeping dog",
]
ENDINGS = [
    "and nobody calls.",
    "as if it knew me.",
    "then goes its own way.",
    "until the kettle sings.",
]

"""Words for poem.rpy. Add some, save, and load the poem again."""

SKIES = ["Morning fog", "A late moon", "Rain on slate", "Thin blue smoke", "The first frost"]
DEEDS = ["walks the empty quay", "leans against the barn", "counts the fallen pears", "wakes the sleeping dog"]
ENDS = ["and nobody calls.", "as if it knew me.", "then goes its own way.", "until the kettle sings."]

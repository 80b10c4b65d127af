"""Who makes the samples, and what brings them to a learner.

`training` is the loop: samples in, steps, records, checkpoints. `intake` says which prompts are
begun, and that none is lost or begun twice. `local` makes samples in this process, at a lag that is
asked for; `ray_fleet` has processes for it, on one machine or many, any of which may die.
"""

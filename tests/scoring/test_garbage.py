"""The garbage collector is paused while modules and vocabularies load, and works as before afterwards."""

import gc
import subprocess
import sys

import pytest

from bench.scoring.garbage import uncollected


def test_the_collector_is_off_inside_and_as_it_was_outside():
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="inside"), uncollected():
        raise ValueError("inside")
    assert gc.isenabled()


def test_objects_made_inside_are_not_looked_at_right_after_it_and_what_a_program_froze_stays_frozen():
    # In a process of its own: in this one, another test may have frozen objects.
    code = """
import gc
from bench.scoring.garbage import uncollected

with uncollected():
    kept = [[] for _ in range(1_000)]
oldest = {id(each) for each in gc.get_objects(generation=2)}
print(all(id(each) in oldest for each in kept), gc.get_freeze_count())
gc.freeze()
before = gc.get_freeze_count()
with uncollected():
    pass
print(gc.get_freeze_count() == before > 1_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True 0", "True"]


def test_what_is_made_after_the_first_import_is_still_collected():
    code = """
import gc, sys, weakref
from bench.scoring.garbage import import_frozen

class Model: pass

def cycle():
    model = Model(); model.itself = model
    return weakref.ref(model)

for module, loaded in (("wave", None), ("wave", None), ("aifc", "transformers.modeling_utils")):
    if loaded:
        sys.modules[loaded] = gc
    kept = cycle()
    import_frozen(module)
    after = cycle()
    gc.collect()
    print(kept() is None, after() is None, gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The first time hides what was there before; the second time hides nothing, so an unused model is freed. Where
    # there may be one, it is freed before all is hidden.
    assert done.stdout.splitlines() == ["False True True", "True True True", "True True True"]

import gc
import subprocess
import sys
import threading
from queue import SimpleQueue

import pytest

from workbench.errors import LoadCancelled
from workbench.models.model_code import _garbage_left_alone, _import, import_model_code
from workbench.progress import no_progress

# In a process of its own, where the import really happens.
IMPORT_AND_LOOK = """
import gc, sys
searches = []
gc.callbacks.append(lambda phase, info: searches.append(phase))
from workbench.models.model_code import import_model_code
searches.clear()
import_model_code()
print(len(searches) // 2, gc.isenabled(), "transformers.modeling_utils" in sys.modules)
"""


def test_no_garbage_is_searched_for_while_importing_and_again_afterwards():
    done = subprocess.run([sys.executable, "-c", IMPORT_AND_LOOK], capture_output=True, text=True, check=True)
    searches, is_enabled, is_imported = done.stdout.split()
    # Hundreds otherwise; one may follow as soon as it is allowed again.
    assert int(searches) < 4
    assert (is_enabled, is_imported) == ("True", "True")


def test_a_load_is_cancelled_without_waiting_for_an_import_but_the_next_import_waits():
    is_over, answers, imported = threading.Event(), SimpleQueue(), []

    def first():
        is_over.wait()
        imported.append("first")

    def cancel(progress):
        raise LoadCancelled(progress.stage)

    def load():
        try:
            _import(first, cancel)
        except LoadCancelled as error:
            answers.put(str(error))

    threading.Thread(target=load).start()
    assert answers.get(timeout=60) == "import torch and transformers"
    threading.Timer(0.05, is_over.set).start()
    _import(lambda: imported.append("second"), no_progress)
    assert imported == ["first", "second"]


def test_who_has_switched_the_collector_off_keeps_it_off():
    gc.disable()
    try:
        import_model_code()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_interrupted_import_leaves_the_collector_on():
    with pytest.raises(KeyboardInterrupt), _garbage_left_alone():
        assert not gc.isenabled()
        raise KeyboardInterrupt
    assert gc.isenabled()


@pytest.mark.skipif(sys.platform != "linux", reason="only there")
def test_torchs_libraries_are_open_before_python_imports_them():
    look = (
        "import sys; from workbench.models.model_code import _open_torch_libraries as open_them; open_them();"
        "print('libtorch_cpu' in open('/proc/self/maps').read(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]

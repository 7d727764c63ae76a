"""What a person sees when a command cannot do what was asked: one line on stderr and an exit status.

Hydra and OmegaConf report some faults in ten lines and others as tracebacks. With full errors switched on, Hydra raises
them all instead; `guarded` does so and turns each into one line that names the value and what would be accepted.
Faults of this program keep their traceback.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from scaling.config.compose import choices_of
from scaling.config.from_dict import nearest
from scaling.console import streams
from scaling.console.interrupt import raising
from scaling.errors import InputError, nearest_names

FULL = "HYDRA_FULL_ERROR"
MORE = {"hydra/launcher": "'precision-scaling[slurm]'", "hydra/sweeper": "hydra-optuna-sweeper"}
"""Groups to which packages add choices."""
COMPOSING = ("hydra._internal.config_loader_impl", "hydra._internal.defaults_list", "hydra.core.override_parser")
"""What goes wrong in these modules is the fault of what they are given."""


class UnfinishedError(Exception):
    """Work was left undone. Its message is one line that says what, and how to go on."""


EXPECTED = (InputError, UnfinishedError, HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError)
"""Of these the last two come from damaged files of configs/ or sweeps/."""


def guarded(app: Callable[[], object], prog: str) -> None:
    """Run `app`; end the process with one line `prog: ...` and status 1 on bad input, 130 on Ctrl-C or a signal of
    a scheduler. It runs to its end where what it prints cannot be written; if that was on stdout, this is status 1 as
    well.

    With HYDRA_FULL_ERROR=1 in the environment the traceback is shown as well.
    """
    streams.secure()
    wants_traceback = os.environ.get(FULL) == "1"
    os.environ[FULL] = "1"
    try:
        # A scheduler's signal is a Ctrl-C: else the workers of a launcher would outlive this process, and train on.
        with raising():
            app()
    except KeyboardInterrupt as stop:
        print(f"{prog}: {str(stop) or 'interrupted; run again to go on'}", file=sys.stderr)
        sys.exit(130)
    except SystemExit as end:
        if end.code:
            raise
    except Exception as fault:
        if wants_traceback or not (isinstance(fault, EXPECTED) or _raised_by_hydra(fault)):
            raise
        sys.exit(f"{prog}: {one_line(fault)}")
    finally:
        if not wants_traceback:
            del os.environ[FULL]
    if fault := streams.lost_output():
        sys.exit(f"{prog}: done, but not all that it printed could be written ({fault.strerror}); see to its stdout")


def one_line(fault: Exception) -> str:
    """The fault in one line: the setting, what is wrong with it, and what would be accepted where that is known."""
    if isinstance(fault, MissingConfigException) and fault.options is not None:
        group, _, name = (fault.missing_cfg_file or "").rpartition("/")
        more = f"; more with pip install {MORE[group]}" if group in MORE else ""
        choices = choices_of(fault.options)
        near = nearest_names(name, choices)
        return f"{group}={name}: no such choice; use one of {', '.join(choices)}{near}{more}"
    cause = fault if isinstance(fault, OmegaConfBaseException) else fault.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and cause.parent_node is not None:
        last = str(cause.full_key).rpartition(".")[2]
        return f"{cause.full_key}: no such setting; {nearest(last, cause.parent_node)}"
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key}: missing; a value has to be given"
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {_flat(cause.msg)}" if cause.full_key else _flat(cause.msg)
    if isinstance(fault, UnicodeDecodeError):
        return f"a file, perhaps of sweeps/ or configs/, is not text in UTF-8 ({_flat(fault)}); write it anew"
    if isinstance(fault, OverrideParseException):
        return f"{fault.override}: cannot be read; write setting=value, and quote what has spaces or any of ,=[]{{}}()"
    if ambiguous := re.match(r"Ambiguous value for argument '(.*)'", str(fault)):
        return f"{ambiguous[1]}: several values; add --multirun to train each, or write a list as name=[a,b]"
    if not isinstance(fault, (ValueError, *EXPECTED)):
        return f"Hydra cannot use these settings ({type(fault).__name__}: {_flat(fault)}); a group takes one name"
    return _flat(fault)


def _flat(text: object) -> str:
    return " ".join(str(text).split())


def _raised_by_hydra(fault: Exception) -> bool:
    """Hydra refuses some command lines with a bare ValueError, and stumbles over others (model=[1])."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(fault.__traceback__)]
    if any(name.startswith(COMPOSING) for name in modules):
        return True
    return isinstance(fault, ValueError) and modules[-1].startswith("hydra.")

"""What the experiments share. Each of them parses options, calls the library, saves, and plots from the saved file."""

from .config import CONFIG_NAME as CONFIG_NAME
from .config import OPTIONS_OF_ONE_CALL as OPTIONS_OF_ONE_CALL
from .config import load_config as load_config
from .config import save_config as save_config
from .folders import OTHER_FOLDER as OTHER_FOLDER
from .folders import begin_folder as begin_folder
from .folders import begin_sweeps as begin_sweeps
from .folders import claim_files as claim_files
from .folders import figure_names as figure_names
from .folders import files_in as files_in
from .folders import make_output_dir as make_output_dir
from .folders import output_dir_held as output_dir_held
from .folders import save_figure as save_figure
from .options import DEFAULT_MOMENTUM as DEFAULT_MOMENTUM
from .options import DataOptions as DataOptions
from .options import RunOptions as RunOptions
from .options import TrainingOptions as TrainingOptions
from .options import memory_bytes as memory_bytes
from .options import parse as parse
from .options import seeds as seeds
from .program import fail as fail
from .program import keep_compiled_programs as keep_compiled_programs
from .program import main as main
from .program import resumable as resumable
from .program import usage_errors as usage_errors

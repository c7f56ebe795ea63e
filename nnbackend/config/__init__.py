"""The options of a run, each declared once.

Keywords of `nnbackend.train` and `Model.fit`, options of the command line, keys of config.toml,
parameters of the estimators and the table in the docs are read from these classes. To add an
option, add a field here: to `UpdateOptions` for all of them, to `TrainOptions` for all but the
estimators, to `Settings` for the command line alone.
"""

from nnbackend.config.kinds import interval as interval
from nnbackend.config.run_options import TrainOptions as TrainOptions
from nnbackend.config.run_options import UpdateOptions as UpdateOptions
from nnbackend.config.settings import DEFAULTS as DEFAULTS
from nnbackend.config.settings import SETTINGS as SETTINGS
from nnbackend.config.settings import TOPICS as TOPICS
from nnbackend.config.settings import Settings as Settings

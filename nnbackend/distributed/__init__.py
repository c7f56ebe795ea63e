"""Several processes that train one network: their communication."""

from nnbackend.distributed.communicator import Alone as Alone
from nnbackend.distributed.communicator import Communicator as Communicator
from nnbackend.distributed.mpi import as_communicator as as_communicator
from nnbackend.distributed.mpi import world as world

"""A PyTorch that hangs when it is imported, and so does a child that it starts."""

import subprocess
import sys
import time

child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print(f"grandchild {child.pid}", flush=True)
time.sleep(600)

"""Model bundles and the code that reads, prepares for and runs them."""

import os

# The onnxruntime of the lock file tells its maker on which machine it runs what, unless this is set before it is
# loaded: it keeps an identifier on the disk and sends when there is a network. A home is nobody's business.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

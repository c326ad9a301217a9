"""``python -m edge.cli`` is ``fallwatch``."""

from edge.cli import main

if __name__ == "__main__":
    main()

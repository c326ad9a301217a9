"""The independent FHIR server sekmet, as a process of its own on a loopback port.

Takes the bearer token ``edge-token``, and one SMART client ``falls-edge-NAME`` per public key file NAME.pem.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("keys", type=Path, nargs="*")
    args = parser.parse_args()
    clients = [
        {"client_id": f"falls-edge-{key.stem}", "public_key_path": str(key), "scopes": "system/*.cruds"}
        for key in args.keys
    ]
    settings = {
        "base_url": f"http://127.0.0.1:{args.port}/fhir",
        "host": "127.0.0.1",
        "port": args.port,
        "data_dir": str(args.folder / "data"),
        "server_auth": {"types": ["bearer", "smart"], "tokens": ["edge-token"], "smart_clients": clients},
        "simulator": {"enabled": False},
    }
    path = args.folder / "settings.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    os.execv(Path(sys.executable).parent / "sekmet", ["sekmet", "serve", "-c", str(path)])


if __name__ == "__main__":
    main()

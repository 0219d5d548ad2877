"""What the proxy saves on recorded agents, net of what a prefix cache makes free: `laconic replay`, file by file.

    python bench/replay_agents.py ../shared/data/agents [--limit 6] [--method llmlingua2] [--model laconic-small]

Every call of the model in a trajectory is one request with all messages before it, as an agent sends it. The price
model is that of src/laconic/serve/replay.py; --read and --write change it (0.5 and 1 where writing the cache costs
nothing extra). "broken" are requests of which less was in the cache than without the proxy.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import laconic
from common import table
from laconic.serve.decisions import Decisions
from laconic.serve.recorded import recorded
from laconic.serve.replay import replay
from laconic.serve.rewrite import Rewriter
from laconic.serve.rules import Rules

HEAD = ["data", "requests", "tokens sent", "tokens saved", "cost saved", "broken", "a request", "parts at first sight"]


def row(file: Path, rewriter: Rewriter, args: argparse.Namespace) -> list[str]:
    """A row of the table."""
    saving = replay(recorded(file, expand=True, limit=args.limit), rewriter, args.read, args.write)
    parts = sorted(saving.lines.items(), key=lambda item: -item[1].parts)
    return [
        file.name.split(".")[0],
        f"{saving.requests}",
        f"{saving.plain.tokens:,}",
        f"{1 - saving.ours.tokens / saving.plain.tokens:.1%}",
        f"{saving.net:.1%}",
        f"{saving.broken}",
        f"{1000 * sum(saving.seconds) / saving.requests:.0f} ms",
        ", ".join(f"{line.parts} {kind} {reason}" for (kind, reason), line in parts),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=6, help="trajectories of each file (default: %(default)s)")
    parser.add_argument("--method", default="llmlingua2")
    parser.add_argument("--model", default="laconic-small")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--floor", type=int, default=Rules().floor, help="tokens (default: %(default)s)")
    parser.add_argument("--read", type=float, default=0.1)
    parser.add_argument("--write", type=float, default=1.25)
    args = parser.parse_args()
    compressor = laconic.load(args.model, method=args.method)
    rows = []
    for file in sorted(args.folder.glob("*.jsonl.gz")):
        with tempfile.TemporaryDirectory() as folder, Decisions(Path(folder, "decisions.sqlite")) as decisions:
            rows.append(row(file, Rewriter(compressor, Rules(rate=args.rate, floor=args.floor), decisions), args))
    print(table(HEAD, rows))


if __name__ == "__main__":
    main()

"""Net::SNPP::Server (Debian package libnet-snpp-perl) as a process of its own, on 127.0.0.1."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.edge.brokers import free_port

PERL = shutil.which("perl")
_ASKED = [PERL or "", "-MNet::SNPP::Server", "-e1"]
HAS_SNPP = PERL is not None and subprocess.run(_ASKED, check=False, capture_output=True).returncode == 0

# Each page is one line in the file given: pager, alert, text.
_PROGRAM = r"""
use strict; use warnings; use Net::SNPP::Server;
my ($port, $file, $refused, $level) = @ARGV;
my $server = Net::SNPP::Server->new(Port => $port, BindTo => "127.0.0.1", Timeout => 20);
$server->callback("validate_pager_id", sub { $_[0] =~ /^\d+$/ && $_[0] ne $refused ? $_[0] : undef });
$server->callback("write_log", sub { });
$server->callback("process_page", sub {
    my ($pager, $page) = @_;
    return 0 if $page->{mess} =~ /FAIL/;
    open(my $out, ">>", $file) or die;
    print $out "$pager->[0]\t$page->{alert}\t$page->{mess}\n"; close($out); 1 });
if ($level == 1) { $server->disable_command($_) for ("ALER", "LOGI") }
else { $server->custom_command("LOGI", sub {
    ("@_" eq "fallwatch opensesame") ? ("250 Login OK", 1) : ("550 Error, Invalid Login", 1) }) }
while (1) { my $client = $server->client; $server->handle_client($client); close($client) }
"""


@contextmanager
def snpp_server(folder: Path, *, level: int = 2, refused: str = "99") -> Iterator[tuple[int, Path]]:
    """Yield the port and the file of what was paged; ``refused`` is a pager that it does not know."""
    assert PERL is not None
    port, paged = free_port(), folder / "paged"
    command = [PERL, "-e", _PROGRAM, str(port), str(paged), refused, str(level)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        listening = Path("/proc/net/tcp")  # and not a connection: the server takes one caller after the other
        until_s = time.monotonic() + 15
        while f":{port:04X} 00000000:0000 0A" not in listening.read_text(encoding="ascii"):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until_s
            time.sleep(0.02)
        yield port, paged
    finally:
        process.kill()
        process.communicate()

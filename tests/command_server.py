"""Runs `tzrec` commands in forks of a process that has torch loaded already.

Loading torch takes seconds and a page of documentation has a dozen commands. A fork has its own
directory, output, environment and exit code, so it is what a command line would have started.

As a script this is the client: ``python command_server.py SOCKET ARGUMENTS...``.
"""

import json
import os
import socket
import sys


def serve(path):
    """Answers commands until the process is killed."""
    from tzrec.options import prepare_process

    prepare_process()
    import torchrec  # noqa: F401

    import tzrec.main  # noqa: F401

    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    while True:
        connection, _ = server.accept()
        text, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        child = os.fork()
        if child == 0:
            os._exit(_run(json.loads(text), files))
        _, status = os.waitpid(child, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        connection.close()
        for file in files:
            os.close(file)


def _run(request, files):
    from tzrec.cli import main

    for target, file in enumerate(files):
        os.dup2(file, target)
    os.chdir(request["directory"])
    sys.path.insert(0, request["directory"])
    code = main(request["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def call(path, arguments):
    """Has a command run with this process's directory and output; returns its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = json.dumps({"directory": os.getcwd(), "arguments": arguments})
        socket.send_fds(connection, [request.encode()], [0, 1, 2])
        return int(connection.recv(16) or b"1")


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[1], sys.argv[2:]))

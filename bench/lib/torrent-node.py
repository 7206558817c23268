"""One BitTorrent node for the distribution benchmark: libtorrent with unlimited slots and connections, TCP only, no discovery.

    torrent-node.py make FILE TORRENT
    torrent-node.py seed|fetch TORRENT DIRECTORY ADDRESS PORT [PEER_ADDRESS ...]

Prints a JSON line when it listens, when it has everything, and, at the end of its input, what payload it sent.
"""

import json
import os
import sys
import threading
import time

import libtorrent as lt

PIECE_BYTES = 1024 * 1024


def say(**fields):
    print(json.dumps(fields), flush=True)


def make(file, torrent):
    files = lt.file_storage()
    files.add_file(os.path.basename(file), os.path.getsize(file))
    made = lt.create_torrent(files, PIECE_BYTES, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(file))
    with open(torrent, "wb") as output:
        output.write(lt.bencode(made.generate()))


def run(role, torrent, directory, address, port, peers):
    session = lt.session(
        {
            "listen_interfaces": f"{address}:{port}",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_incoming_utp": False,
            "enable_outgoing_utp": False,
            "unchoke_slots_limit": -1,
            "connections_limit": 1000,
            "connection_speed": 200,
            "allow_multiple_connections_per_ip": True,
            "out_enc_policy": 2,
            "in_enc_policy": 2,
            "alert_mask": lt.alert.category_t.stats_notification,
        }
    )
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    if role == "seed":
        parameters.flags |= lt.torrent_flags.seed_mode
    handle = session.add_torrent(parameters)
    ended = threading.Event()

    def commands():
        for line in sys.stdin:
            if line.strip() == "go":
                for peer in peers:
                    handle.connect_peer((peer, int(port)))
        ended.set()

    threading.Thread(target=commands, daemon=True).start()
    say(event="listening")
    told = role == "seed"
    while not ended.wait(0.01):
        if not told and handle.status().is_finished:
            told = True
            say(event="done", atMs=time.time() * 1000)
    say(event="end", sentPayloadBytes=handle.status().total_payload_upload)


if sys.argv[1] == "make":
    make(sys.argv[2], sys.argv[3])
else:
    run(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5], sys.argv[6:])

#!/usr/bin/python3
"""picture.py [FOLDER]: writes picture.svg, beside itself or there: what ndio is in one look, two ends, who has
the key, and what crosses the wire. `make check` sees whether it was run after a change.
"""
import os
import sys
from xml.sax.saxutils import escape

WIDE, HIGH = 860, 400
PLAIN, CIPHER, INK, PAPER = "#c2410c", "#1f5fa8", "#1f2933", "#ffffff"


def text(x, y, words, size=14, fill=INK, anchor="middle", more=""):
    return (f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{more}>'
            f"{escape(words)}</text>")


def box(x, y, wide, high, lines, key=False, fill="#f4f6f8"):
    """Lines of words in a box; the first says what it is. With a key in its corner, perhaps."""
    drawn = [f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="7" fill="{fill}" stroke="{INK}"/>']
    first = y + high / 2 - 9 * (len(lines) - 1) + 5
    for i, words in enumerate(lines):
        drawn.append(text(x + wide / 2, first + 18 * i, words, 15 if i == 0 else 12,
                          more=' font-weight="bold"' if i == 0 else ""))
    if key:
        drawn.append(draw_key(x + wide - 20, y - 3))
    return drawn


def draw_key(x, y):
    return (f'<g transform="translate({x},{y})" fill="none" stroke="{PLAIN}" stroke-width="3">'
            f'<circle cx="0" cy="0" r="7" fill="{PAPER}"/><path d="M0 7 V26 M0 18 H7 M0 25 H7"/></g>')


def disk(x, y, words):
    wide, high = 92, 56
    return [f'<path d="M{x} {y + 9} V{y + high - 9} A{wide / 2} 9 0 0 0 {x + wide} {y + high - 9} V{y + 9}" '
            f'fill="#dbe7f5" stroke="{CIPHER}" stroke-width="1.5"/>',
            f'<ellipse cx="{x + wide / 2}" cy="{y + 9}" rx="{wide / 2}" ry="9" fill="#dbe7f5" '
            f'stroke="{CIPHER}" stroke-width="1.5"/>',
            text(x + wide / 2, y + 38, words, 13, CIPHER)]


def wire(x, to, y, words, colour):
    """Both ways."""
    return [f'<path d="M{x + 8} {y} H{to - 8}" stroke="{colour}" stroke-width="3"/>',
            *(f'<path d="M{end} {y} l{8 * way} -5 v10 z" fill="{colour}"/>' for end, way in ((x, 1), (to, -1))),
            *(text((x + to) / 2, y - 9 - 15 * (len(words) - 1 - i), line, 12.5, colour)
              for i, line in enumerate(words))]


def row(top, title, parts):
    return [text(20, top, title, 17, anchor="start", more=' font-weight="bold"'), *sum(parts, [])]


def picture():
    first, second = 34, 214
    server_has_it = row(first, "The server has the key: any NBD client gets a plain disk", [
        box(20, first + 40, 200, 76, ["any NBD client", "the kernel, qemu, nbdcopy,", "a program with libnbd"]),
        wire(226, 424, first + 84, ["plaintext", "(inside TLS, best)"], PLAIN),
        box(430, first + 40, 200, 76, ["ndio", "ndio serve,", "or its plugin in nbdkit"], key=True, fill="#eef4fb"),
        wire(636, 736, first + 84, ["ciphertext"], CIPHER),
        disk(744, first + 50, "LUKS")])
    client_has_it = row(second, "The client has the key: neither network nor server sees plaintext", [
        box(20, second + 40, 200, 76, ["ndio", "ndio attach, copy, libndio,", "or a gateway for others"],
            key=True, fill="#eef4fb"),
        wire(226, 424, second + 84, ["ciphertext", "(inside TLS, best)"], CIPHER),
        box(430, second + 40, 200, 76, ["any NBD server", "ndio serve, nbdkit, qemu-nbd,", "before a disk, Ceph, S3, ..."]),
        wire(636, 736, second + 84, ["ciphertext"], CIPHER),
        disk(744, second + 50, "LUKS")])
    foot = [draw_key(34, HIGH - 40), text(52, HIGH - 22, "the key, which never leaves that machine", 13, anchor="start"),
            text(WIDE - 20, HIGH - 22, "what ndio writes opens with cryptsetup, and the other way round", 13,
                 anchor="end")]
    shapes = "\n".join([*server_has_it, *client_has_it, *foot])
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}" '
            f'font-family="sans-serif">\n<title>What ndio is</title>\n'
            f'<rect width="{WIDE}" height="{HIGH}" fill="{PAPER}"/>\n{shapes}\n</svg>\n')


HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(sys.argv[1] if len(sys.argv) > 1 else HERE, "picture.svg"), "w", encoding="utf-8") as file:
    file.write(picture())

"""Encrypted disks, local or behind an NBD server: read and written from Python.

    import ndio

    with ndio.Volume("nbds://server/disk", key=passphrase) as volume:
        volume.pwrite(b"hello", 4096, fua=True)
        print(volume.pread(5, 4096))

Encryption and decryption is done on this side, as LUKS. Every call has a second one, aio_..., that
returns an asyncio.Future at once. What fails is an OSError with an errno and a sentence. See ndio-python(3).
"""
import asyncio
import atexit
import itertools
import types
import weakref

import _ndio

__all__ = ["Volume", "HOLE", "ZERO"]
__version__ = _ndio.version()

# Of extents: takes no space; reads as zeroes.
HOLE = _ndio.EXTENT_HOLE
ZERO = _ndio.EXTENT_ZERO

_DIRECT = {"auto": _ndio.DIRECT_AUTO, True: _ndio.DIRECT_ON, False: _ndio.DIRECT_OFF}
_SERVER = {_ndio.SERVER_UP: "up", _ndio.SERVER_AWAY: "away", _ndio.SERVER_GIVEN_UP: "given up",
           _ndio.SERVER_ENDED: "ended"}
_CAN = {name[len("CAN_"):].lower(): value for name, value in vars(_ndio).items() if name.startswith("CAN_")}


def _bits(**flags):
    """The flags of _ndio that are true here, as a number."""
    return sum(getattr(_ndio, name) for name, value in flags.items() if value)


def _vector(buffers):
    """A sequence of buffers; one by itself is a mistake, which would be taken for a sequence of numbers."""
    if isinstance(buffers, (bytes, bytearray, memoryview, str)):
        raise TypeError("a sequence of buffers is needed, not one buffer")
    return buffers


class _Reader:
    """Where one loop waits for what one volume's requests have to tell: the queue's descriptor is watched
    while there are any."""

    def __init__(self, loop):
        self._loop = loop
        self._queue = _ndio.Queue()
        self._ids = itertools.count()
        self._futures = {}  # and their volume, which must live so long

    def ask(self, volume, what, result=None):
        """Makes a request. result: what the future gets in place of what it gives."""
        future = self._loop.create_future()
        if not self._futures:
            self._loop.add_reader(self._queue.fileno(), self._fetch)
        number = next(self._ids)
        self._futures[number] = (future, volume, result)
        try:
            volume._submit(self._queue, number, *what)
        except BaseException:
            del self._futures[number]
            self._rest()
            raise
        return future

    def _fetch(self):
        for number, errno, value in self._queue.reap():
            future, volume, result = self._futures.pop(number)
            if future.done():  # cancelled: nobody waits for it any more
                continue
            if errno:
                future.set_exception(OSError(errno, volume._reason(errno)))
            else:
                future.set_result(result if result is not None else value)
        self._rest()

    def _rest(self):
        if not self._futures:
            self._loop.remove_reader(self._queue.fileno())

    def is_over(self):
        """The loop has been closed, and nothing that was asked for there is in flight any more."""
        if not self._loop.is_closed():
            return False
        self._futures.clear()
        while self._queue.reap():
            pass
        return not self._queue.pending()


class Volume(_ndio.Volume):
    """A disk that is open: a path or an NBD URI, with a key as LUKS, without one as it is.

    key: bytes of the passphrase, or a key file's content (a str is taken as UTF-8); header: path of a
    detached LUKS header; trust: path of a trust file (ndio-trust(1)); readonly: never write; discard: True or False passes trims of an encrypted disk
    through or doesn't, None does what its header says; lock: keep other writers off a file; direct: "auto",
    True or False; connections: to a server that allows several; key_slot: try this one alone;
    max_kdf_time: seconds that a key may take; answer_timeout, reconnect: seconds, for servers that are
    silent or away, reconnect=0 waits for none; unflushed: bytes that are kept to be sent again;
    copy_memory: bytes that copy=True may take; file_size: a file is taken to be at least so long.
    0 is libndio's default, but for reconnect, where that is None.
    """

    def __init__(self, locator, key=None, *, header=None, readonly=False, discard=None, lock=True,
                 direct="auto", connections=0, key_slot=None, max_kdf_time=0, answer_timeout=0, reconnect=None,
                 unflushed=0, copy_memory=0, file_size=0, trust=None):
        flags = _bits(OPEN_READONLY=readonly, OPEN_DISCARD=discard, OPEN_NO_DISCARD=discard is False,
                      OPEN_NO_LOCK=not lock, OPEN_KEY_SLOT=key_slot is not None,
                      OPEN_NO_RECONNECT=reconnect == 0)
        if direct not in _DIRECT:
            raise ValueError('direct is "auto", True or False')
        self._readers = {}
        super().__init__(locator, key, header, trust, flags, _DIRECT[direct], connections, copy_memory, file_size,
                         key_slot or 0, max_kdf_time, answer_timeout, unflushed, reconnect or 0)
        self._locator = locator
        _open.add(self)

    def unlock(self, key, *, header=None, discard=None, key_slot=None, max_kdf_time=0,
               trust=None):
        """Opens with a key what was opened without one, over the connection that there is. Nothing may
        be in flight."""
        flags = _bits(OPEN_DISCARD=discard, OPEN_NO_DISCARD=discard is False,
                      OPEN_KEY_SLOT=key_slot is not None)
        self._unlock(key, header, trust, flags, key_slot or 0, max_kdf_time)

    def close(self, cancel=False):
        """Waits for all that is in flight, or cancels what isn't done yet, and closes. Doesn't flush.
        A second time it does nothing."""
        self._close(cancel)
        _open.discard(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    def __repr__(self):
        name = getattr(self, "_locator", None)
        return f"<ndio.Volume {name!r}{' closed' if self.closed else ''}>"

    # What it is.

    def info(self):
        """struct ndio_info, by its names; can is a set of names such as "trim"."""
        info = self._info()
        info["can"] = {name for name, bit in _CAN.items() if info["can"] & bit}
        return types.SimpleNamespace(**info)

    def stats(self):
        """struct ndio_stats, by its names; server is "up", "away", "given up" or "ended"."""
        stats = self._stats()
        stats["server"] = _SERVER.get(stats["server"], "unknown")
        return types.SimpleNamespace(**stats)

    @property
    def size(self):
        """Bytes of the plaintext disk."""
        return self._info()["size"]

    # What can be asked for: each call by its number, buffers, offset, length and flags.

    @staticmethod
    def _read(buffers, offset, pin):
        return _ndio.READ, _vector(buffers), offset, 0, _bits(PIN=pin)

    @staticmethod
    def _write(buffers, offset, fua, pin, copy):
        return _ndio.WRITE, _vector(buffers), offset, 0, _bits(FUA=fua, PIN=pin, COPY=copy)

    @staticmethod
    def _zero(offset, length, fua, may_trim, fast):
        return (_ndio.ZERO, None, offset, length,
                _bits(FUA=fua, MAY_TRIM=may_trim, FAST_ZERO=fast))

    def preadv(self, buffers, offset, *, pin=False):
        """Fills these writable buffers, all of them, from there. The bytes read."""
        return self._run(*self._read(buffers, offset, pin))

    def pwritev(self, buffers, offset, *, fua=False, pin=False):
        """Writes all that is in these buffers there; fua: it is on stable storage then. The bytes
        written."""
        return self._run(*self._write(buffers, offset, fua, pin, False))

    def pread(self, length, offset):
        """So many bytes from there, a bytearray."""
        data = bytearray(length)
        self.preadv([data], offset)
        return data

    def pwrite(self, data, offset, *, fua=False):
        """Writes this buffer there. The bytes written."""
        return self.pwritev([data], offset, fua=fua)

    def flush(self):
        """All writes that have completed are on stable storage then."""
        self._run(_ndio.FLUSH, None, 0, 0, 0)

    def trim(self, offset, length, *, fua=False):
        """The whole blocks inside aren't needed any more."""
        self._run(_ndio.TRIM, None, offset, length, _bits(FUA=fua))

    def zero(self, offset, length, *, fua=False, may_trim=False, fast=False):
        """Zeroes there; may_trim: with a hole, perhaps; fast: or not at all, if that takes long."""
        self._run(*self._zero(offset, length, fua, may_trim, fast))

    def cache(self, offset, length):
        """It will be read soon."""
        self._run(_ndio.CACHE, None, offset, length, 0)

    def extents(self, offset, length):
        """What takes space there: a list of (offset, length, type), type of HOLE and ZERO."""
        return self._run(_ndio.EXTENTS, None, offset, length, 0)

    # The same in a running loop. The request is made before the call returns, whoever awaits it and when;
    # its buffers are held until it has completed, also if nobody waits any more.

    def _ask(self, *what, result=None):
        loop = asyncio.get_running_loop()
        reader = self._readers.get(loop)
        if reader is None:
            for old in [old for old, its in self._readers.items() if its.is_over()]:
                del self._readers[old]
            reader = self._readers[loop] = _Reader(loop)
        return reader.ask(self, what, result)

    def aio_preadv(self, buffers, offset, *, pin=False):
        """preadv(), as a Future."""
        return self._ask(*self._read(buffers, offset, pin))

    def aio_pwritev(self, buffers, offset, *, fua=False, pin=False, copy=False):
        """pwritev(), as a Future; copy: the buffers may be reused at once."""
        return self._ask(*self._write(buffers, offset, fua, pin, copy))

    def aio_pread(self, length, offset):
        """pread(), as a Future."""
        data = bytearray(length)
        return self._ask(*self._read([data], offset, False), result=data)

    def aio_pwrite(self, data, offset, *, fua=False):
        """pwrite(), as a Future."""
        return self.aio_pwritev([data], offset, fua=fua)

    def aio_flush(self):
        """flush(), as a Future."""
        return self._ask(_ndio.FLUSH, None, 0, 0, 0)

    def aio_trim(self, offset, length, *, fua=False):
        """trim(), as a Future."""
        return self._ask(_ndio.TRIM, None, offset, length, _bits(FUA=fua))

    def aio_zero(self, offset, length, *, fua=False, may_trim=False, fast=False):
        """zero(), as a Future."""
        return self._ask(*self._zero(offset, length, fua, may_trim, fast))

    def aio_cache(self, offset, length):
        """cache(), as a Future."""
        return self._ask(_ndio.CACHE, None, offset, length, 0)

    def aio_extents(self, offset, length):
        """extents(), as a Future."""
        return self._ask(_ndio.EXTENTS, None, offset, length, 0)


# What is still open at the end is closed while there is a Python: what is in flight may be cancelled.
_open = weakref.WeakSet()


@atexit.register
def _close_all():
    for volume in list(_open):
        volume.close(cancel=True)

"""What blocks: volumes opened, read, written, closed, and what goes wrong with them. PLAIN and LUKS are
disks, KEY's content opens the second, which is served at SERVED as well."""
import array
import errno
import gc
import mmap
import os
import pathlib
import sys
import threading
import unittest
import warnings
import weakref

import ndio
import tap

PLAIN, LUKS, SERVED = os.environ["PLAIN"], os.environ["LUKS"], os.environ["SERVED"]
with open(os.environ["KEY"], "rb") as its_file:
    KEY = its_file.read()


def notices_of(volume):
    """But for what depends on this machine."""
    machine = "buffers can't be locked in memory", ": io_uring is refused ("
    return [notice for notice in volume.notices() if not any(words in notice for words in machine)]


class Blocking(unittest.TestCase):
    def fails(self, number, words, call, *args, **kwargs):
        """The call fails with this errno, and a sentence that has these words."""
        with self.assertRaises(OSError) as caught:
            call(*args, **kwargs)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[number])
        self.assertIn(words, caught.exception.strerror)
        return caught.exception

    def test_round_trip(self):
        """what is written is read, encrypted and not, aligned and not"""
        for locator, key in (PLAIN, None), (LUKS, KEY), (LUKS, KEY.decode()):
            with ndio.Volume(locator, key) as volume:
                for offset in 0, 1, 511, 4096, volume.size - 100003:
                    data = os.urandom(100003)
                    self.assertEqual(volume.pwrite(data, offset, fua=True), len(data))
                    self.assertEqual(volume.pread(len(data), offset), data)
                volume.flush()
        with open(LUKS, "rb") as file:
            self.assertNotIn(data[5000:5100], file.read())

    def test_locators(self):
        """a locator may be bytes or a path, and may be odd"""
        odd = os.fsencode(PLAIN) + b"-\xff"
        os.symlink(PLAIN, odd)
        with ndio.Volume(odd) as one, ndio.Volume(pathlib.Path(PLAIN), readonly=True) as two:
            one.pwrite(b"odd", 0)
            self.assertEqual(two.pread(3, 0), b"odd")
        self.assertIn("-", self.fails(errno.EBADF, "closed", one.pread, 1, 0).strerror)
        with self.assertRaises(ValueError):
            ndio.Volume("a\0b")

    def test_buffers(self):
        """reads fill whatever can be written, writes take whatever can be read"""
        with ndio.Volume(PLAIN) as volume, mmap.mmap(-1, 4096) as mapped:
            parts = [bytearray(3), memoryview(bytearray(10))[2:7], array.array("H", [0] * 500), mapped]
            data = os.urandom(sum(memoryview(part).nbytes for part in parts))
            volume.pwritev([data[:1], b"", memoryview(data)[1:]], 777)
            self.assertEqual(volume.preadv(parts, 777), len(data))
            self.assertEqual(b"".join(bytes(part) for part in parts), data)
            self.assertEqual(volume.preadv([], 0), 0)
            for bad in [b"constant"], [memoryview(b"constant")], [memoryview(bytearray(8))[::2]]:
                with self.assertRaises(BufferError):
                    volume.preadv(bad, 0)
            for bad in bytearray(8), [bytearray(8), 5], 5, [None], ["text"]:
                with self.assertRaises(TypeError):
                    volume.preadv(bad, 0)
            with self.assertRaises(TypeError):
                volume.pwritev(["text"], 0)
            released = memoryview(bytearray(8))
            released.release()
            with self.assertRaises(ValueError):
                volume.preadv([bytearray(8), released], 0)

    def test_small_buffer(self):
        """a buffer that is shorter than a sector gets what fits, and no byte more"""
        with ndio.Volume(LUKS, KEY) as volume:
            volume.pwrite(bytes(range(256)) * 32, 0)
            room = bytearray(100)
            self.assertEqual(volume.preadv([memoryview(room)[40:60]], 4090), 20)
            self.assertEqual(room, bytes(40) + (bytes(range(256)) * 32)[4090:4110] + bytes(40))

    def test_wrong_key(self):
        """a wrong key is a PermissionError that names the disk"""
        error = self.fails(errno.EPERM, "no key slot opens", ndio.Volume, LUKS, KEY + b"\n")
        self.assertIsInstance(error, PermissionError)
        self.assertIn(LUKS, error.strerror)
        self.fails(errno.EINVAL, "LUKS", ndio.Volume, PLAIN, KEY)
        self.fails(errno.ENOENT, "", ndio.Volume, PLAIN + "-not")
        self.fails(errno.ENOENT, "slot", ndio.Volume, LUKS, KEY, key_slot=7)
        self.fails(errno.ENOENT, "no.trust", ndio.Volume, LUKS, KEY, trust="no.trust")
        self.fails(errno.EINVAL, "a trust file without a key", ndio.Volume, PLAIN, trust="no.trust")
        self.fails(errno.EINVAL, "", ndio.Volume, PLAIN, answer_timeout=1 << 31)
        for bad in {"direct": 5}, {"direct": None}:
            with self.assertRaises(ValueError):
                ndio.Volume(PLAIN, **bad)
        for bad in {"connections": -1}, {"connections": 1 << 32}, {"unflushed": 1 << 64}:
            with self.assertRaises(OverflowError):
                ndio.Volume(PLAIN, **bad)
        for bad in {"header": 5}, {"trust": 5}, {"key": 5}, {"max_kdf_time": "long"}:
            with self.assertRaises(TypeError):
                ndio.Volume(LUKS, **bad)

    def test_end(self):
        """behind the end, and where nothing can be"""
        with ndio.Volume(PLAIN) as volume:
            self.fails(errno.EINVAL, "", volume.pread, 2, volume.size - 1)
            self.fails(errno.ENOSPC, "", volume.pwrite, b"12", volume.size - 1)
            for offset in -1, 1 << 64:
                with self.assertRaises(OverflowError):
                    volume.pread(1, offset)
            with self.assertRaises(TypeError):
                volume.pread(1, "0")
        with ndio.Volume(PLAIN, readonly=True) as volume:
            self.fails(errno.EROFS, "", volume.pwrite, b"1", 0)

    def test_others(self):
        """zeroes, trims, extents, what it is and what was done"""
        with ndio.Volume(PLAIN) as volume:
            volume.pwrite(b"x" * (1 << 20), 0)
            volume.zero(4096, 8192, fua=True)
            self.assertEqual(volume.pread(8194, 4095), b"x" + bytes(8192) + b"x")
            volume.trim(65536, 65536)
            self.fails(errno.EOPNOTSUPP, "cache", volume.cache, 0, 4096)
            extents = volume.extents(0, volume.size)
            self.assertEqual([extents[0][0], sum(length for _, length, _ in extents)], [0, volume.size])
            self.assertLessEqual({kind for _, _, kind in extents}, {0, 1, 2, ndio.HOLE | ndio.ZERO})
            with ndio.Volume(PLAIN, readonly=True, direct=False) as cached:
                self.assertIn("cache", cached.info().can)
                cached.cache(0, 4096)
            self.assertEqual(volume.stats().bytes_written, 1 << 20)
            self.assertEqual(volume.stats().server, "up")
            self.assertIn("write", volume.info().can)
            self.assertEqual(notices_of(volume), [])
            with self.assertRaises(ValueError):
                volume._run(99, None, 0, 0, 0)
            self.fails(errno.EINVAL, "", volume._run, 0, [bytearray(1)], 0, 0, 1 << 30)
        with ndio.Volume(LUKS, KEY, readonly=True) as volume:
            self.assertEqual(volume.info().cipher, "aes-xts-plain64")

    def test_closed(self):
        """a closed volume says so, whatever it is asked for"""
        volume = ndio.Volume(PLAIN)
        volume.close()
        volume.close(cancel=True)
        self.assertTrue(volume.closed)
        self.assertIn("closed", repr(volume))
        calls = [(volume.pread, 1, 0), (volume.pwrite, b"", 0), (volume.preadv, [], 0),
                 (volume.pwritev, [], 0), (volume.flush,), (volume.trim, 0, 1), (volume.zero, 0, 1),
                 (volume.cache, 0, 1), (volume.extents, 0, 1), (volume.info,), (volume.stats,),
                 (volume.unlock, b"key")]
        for call in calls:
            self.fails(errno.EBADF, "is closed", *call)
        self.assertEqual(notices_of(volume), [])
        self.fails(errno.EBUSY, "already", volume.__init__, PLAIN)
        never = ndio.Volume.__new__(ndio.Volume)
        self.assertIn("None", repr(never))
        self.fails(errno.EBADF, "closed", never.flush)

    def test_unlock(self):
        """what was opened without a key is unlocked, or stays what it was"""
        with ndio.Volume(LUKS, readonly=True) as volume:
            self.fails(errno.EINVAL, "of a server", volume.unlock, KEY)
        with ndio.Volume(SERVED, readonly=True) as volume:
            self.assertEqual(volume.pread(4, 0), b"LUKS")
            self.fails(errno.EPERM, "no key slot", volume.unlock, b"wrong")
            self.assertEqual(volume.pread(4, 0), b"LUKS")
            volume.unlock(KEY)
            self.assertLess(volume.size, os.stat(LUKS).st_size)
            self.fails(errno.EINVAL, "", volume.unlock, KEY)

    def test_notices(self):
        """what should be known is kept until it is asked for, once"""
        with ndio.Volume(PLAIN), ndio.Volume(PLAIN, readonly=True, direct=False) as volume:
            self.assertIsInstance(volume.notices(), list)
            self.assertEqual(notices_of(volume), [])

    def test_threads(self):
        """threads read beside each other, and close() waits for who is reading"""
        volume, done, began = ndio.Volume(PLAIN), [], threading.Semaphore(0)

        def read():
            room = bytearray(1 << 20)
            began.release()
            try:
                while True:
                    volume.preadv([room], 0)
            except OSError as error:
                done.append(error.errno)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in threads:
            began.acquire()
        volume.close()
        for thread in threads:
            thread.join()
        self.assertEqual(done, [errno.EBADF] * 4)

    def test_forgotten(self):
        """who forgets to close is warned, and it is closed, also in a circle"""
        volume = ndio.Volume(PLAIN)
        gone = weakref.ref(volume)
        with self.assertWarnsRegex(ResourceWarning, "unclosed"):
            del volume
        self.assertIsNone(gone())
        volume = ndio.Volume(PLAIN)
        volume.circle, gone = volume, weakref.ref(volume)
        with self.assertWarnsRegex(ResourceWarning, "unclosed"):
            del volume
            gc.collect()
        self.assertIsNone(gone())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ndio.Volume(PLAIN).close()

    def test_fork(self):
        """behind a fork the parent's volume is no volume, and does no harm"""
        with ndio.Volume(PLAIN) as volume:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    volume.pread(1, 0)
                except OSError as error:
                    status = 0 if error.errno == errno.EBADF and "fork" in error.strerror else 2
                volume.close()
                with ndio.Volume(PLAIN, readonly=True) as its:
                    its.pread(1, 0)
                os._exit(status)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            volume.pread(1, 0)

    def test_nothing_is_left(self):
        """a thousand calls, half of which fail, leave no reference, no memory and no descriptor"""
        room, data = bytearray(4096), b"x" * 4096

        def once():
            with ndio.Volume(PLAIN) as volume:
                for _ in range(20):
                    volume.preadv([room, memoryview(room)], 0)
                    volume.pwritev([data], 8192)
                    volume.extents(0, volume.size)
                    for bad in ([data], 0), ([room], volume.size), ([room, 5], 0), ([room], -1):
                        try:
                            volume.preadv(*bad)
                        except (OSError, TypeError, BufferError, OverflowError):
                            pass
            try:
                ndio.Volume(LUKS, "wrong", header=PLAIN)
            except OSError:
                pass

        def count():
            gc.collect()
            return sys.getrefcount(room), sys.getrefcount(data), len(os.listdir("/proc/self/fd"))

        once()
        once()
        before, objects = count(), tap.objects()
        for _ in range(40):
            once()
        self.assertEqual(count(), before)
        self.assertLess(tap.objects() - objects, 40)
        room.append(1)


tap.main()

"""What doesn't block: requests by asyncio, and what becomes of them when nobody waits any more. PLAIN is a
disk of 8 MiB; GATED a server whose reads wait until there is a file named by GATE."""
import asyncio
import errno
import gc
import os
import subprocess
import sys
import unittest
import weakref

import ndio
import tap

PLAIN, GATED, GATE = os.environ["PLAIN"], os.environ["GATED"], os.environ["GATE"]


def set_gate(is_open):
    if is_open:
        open(GATE, "w").close()
    elif os.path.exists(GATE):
        os.unlink(GATE)


class Asynchronous(unittest.TestCase):
    def setUp(self):
        set_gate(False)

    def held(self, room):
        """Something uses its memory: it can't be resized."""
        try:
            room.append(0)
        except BufferError:
            return True
        room.pop()
        return False

    def test_many(self):
        """many at a time, each with its own result"""
        async def main(volume):
            pieces = {at: os.urandom(5000) for at in range(0, 200 * 5000, 5000)}
            self.assertEqual(await asyncio.gather(*(volume.aio_pwrite(data, at) for at, data in pieces.items())),
                             [5000] * 200)
            await volume.aio_flush()
            self.assertEqual(await asyncio.gather(*(volume.aio_pread(5000, at) for at in pieces)),
                             list(pieces.values()))
            await volume.aio_zero(0, 5000, fua=True)
            await volume.aio_trim(8192, 8192)
            room = bytearray(5001)
            self.assertEqual(await volume.aio_preadv([room], 0), 5001)
            self.assertEqual(room, bytes(5000) + pieces[5000][:1])
            self.assertEqual(sum(length for _, length, _ in await volume.aio_extents(0, volume.size)), volume.size)
            reused = bytearray(b"first")
            written = volume.aio_pwritev([reused], 0, copy=True)
            reused[:] = b"later"
            await written
            self.assertEqual(await volume.aio_pread(5, 0), b"first")

        async def cache(volume):
            await volume.aio_cache(0, 4096)

        with ndio.Volume(PLAIN) as volume:
            asyncio.run(main(volume))
            asyncio.run(main(volume))
        with ndio.Volume(PLAIN, direct=False) as volume:
            asyncio.run(cache(volume))

    def test_errors(self):
        """an error is in the future, or at once where nothing was asked for"""
        async def main(volume):
            good = volume.aio_pread(10, 0)
            for call, number in ((volume.aio_pread, 10, volume.size), errno.EINVAL), \
                                ((volume.aio_pwrite, b"12", volume.size - 1), errno.ENOSPC):
                with self.assertRaises(OSError) as caught:
                    await call[0](*call[1:])
                self.assertEqual(caught.exception.errno, number)
                self.assertIn(PLAIN, caught.exception.strerror)
            for bad in ([b"constant"], 0), ([5], 0), (bytearray(1), 0), ([bytearray(1)], -1):
                with self.assertRaises((BufferError, TypeError, OverflowError)):
                    volume.aio_preadv(*bad)
            self.assertEqual(len(await good), 10)
            volume.close()
            with self.assertRaises(OSError) as caught:
                await volume.aio_flush()
            self.assertEqual(caught.exception.errno, errno.EBADF)

        with ndio.Volume(PLAIN) as volume:
            with self.assertRaises(RuntimeError):
                volume.aio_flush()
            asyncio.run(main(volume))

    def test_cancelled(self):
        """who doesn't wait any more doesn't get the memory back before its time"""
        async def main(volume):
            room = bytearray(4096)
            with self.assertRaises(TimeoutError):
                await asyncio.wait_for(volume.aio_preadv([room], 0), 0.05)
            self.assertTrue(self.held(room))
            other = volume.aio_pread(10, 0)
            set_gate(True)
            self.assertEqual(len(await other), 10)
            while self.held(room):
                await asyncio.sleep(0.01)
            self.assertEqual(room, b"g" * 4096)

        with ndio.Volume(GATED, readonly=True) as volume:
            asyncio.run(main(volume))

    def test_exception(self):
        """a coroutine that ends in an exception leaves requests behind, and close() sees to them"""
        room = bytearray(4096)

        async def main(volume):
            futures = [volume.aio_preadv([memoryview(room)[:100]], at) for at in range(20)]
            raise KeyError(len(futures))

        for cancel in True, False:
            volume = ndio.Volume(GATED, readonly=True)
            with self.assertRaises(KeyError):
                asyncio.run(main(volume))
            self.assertTrue(self.held(room))
            set_gate(not cancel)
            volume.close(cancel=cancel)
            volume = None
            gc.collect()
            self.assertFalse(self.held(room))
            set_gate(False)

    def test_next_loop(self):
        """a loop that was left in the middle doesn't keep another from going on, nor memory for long"""
        room = bytearray(4096)

        async def leave(volume):
            volume.aio_preadv([room], 0)

        async def go_on(volume):
            return await volume.aio_pread(3, 0)

        with ndio.Volume(GATED, readonly=True) as volume:
            asyncio.run(leave(volume))
            self.assertTrue(self.held(room))
            set_gate(True)
            while self.held(room):
                self.assertEqual(asyncio.run(go_on(volume)), b"ggg")
            self.assertEqual(len(volume._readers), 1)

    def test_close_in_flight(self):
        """a volume closed in a coroutine: who still waits is told"""
        async def main():
            volume = ndio.Volume(GATED, readonly=True)
            futures = [volume.aio_pread(100, at) for at in range(10)]
            with self.assertRaises(OSError) as caught:
                volume.unlock(b"key")
            self.assertEqual(caught.exception.errno, errno.EBUSY)
            volume.close(cancel=True)
            results = await asyncio.gather(*futures, return_exceptions=True)
            self.assertEqual({error.errno for error in results}, {errno.ECANCELED})

        asyncio.run(main())

    def test_forgotten(self):
        """all forgotten in the middle, in circles: closed, warned of, and gone"""
        room = bytearray(4096)

        class Marker:
            pass

        async def main(volume, marker):
            futures = [volume.aio_preadv([memoryview(room)[:10]], at) for at in range(5)]
            volume.circle = [volume, futures, marker]
            raise KeyError

        marker = Marker()
        gone = weakref.ref(marker)
        with self.assertWarnsRegex(ResourceWarning, "unclosed"):
            with self.assertRaises(KeyError):
                asyncio.run(main(ndio.Volume(GATED, readonly=True), marker))
            del marker
            gc.collect()
        gc.collect()
        self.assertIsNone(gone())
        self.assertFalse(self.held(room))

    def test_exit(self):
        """an interpreter that ends in the middle ends, without a word"""
        program = """if True:
            import asyncio, os, sys, threading, ndio
            kept = []
            async def main(volume):
                kept.extend(volume.aio_preadv([bytearray(4096)], at) for at in range(50))
                if sys.argv[2] == "exception":
                    raise SystemExit(3)
                if sys.argv[2] == "awaited":
                    asyncio.get_running_loop().call_later(0.05, sys.exit, 3)
                    await kept[0]
                sys.exit(3)
            volume = ndio.Volume(sys.argv[1], readonly=True)
            if sys.argv[2] == "thread":
                ready = threading.Event()
                def loop():
                    async def wait():
                        kept.extend(volume.aio_pread(10, 0) for _ in range(5))
                        ready.set()
                        await asyncio.gather(*kept, return_exceptions=True)
                    asyncio.run(wait())
                threading.Thread(target=loop, daemon=True).start()
                ready.wait()
                sys.exit(3)
            asyncio.run(main(volume))
            """
        for how in "left", "exception", "awaited", "thread":
            run = subprocess.run([sys.executable, "-c", program, GATED, how], capture_output=True, text=True,
                                 timeout=120, check=False)
            self.assertEqual((run.returncode, run.stderr), (3, ""), how)

    def test_nothing_is_left(self):
        """many loops and volumes leave no reference, no object and no descriptor"""
        set_gate(True)
        room = bytearray(4096)

        async def main(volume):
            await asyncio.gather(*(volume.aio_preadv([memoryview(room)[:64]], at) for at in range(5)),
                                 volume.aio_extents(0, 4096))
            volume.aio_preadv([room], 0)

        def once():
            with ndio.Volume(GATED, readonly=True, connections=1) as volume:
                asyncio.run(main(volume))
                asyncio.run(main(volume))

        def count():
            gc.collect()
            return sys.getrefcount(room), len(os.listdir("/proc/self/fd"))

        once()
        once()
        before, objects = count(), tap.objects()
        for _ in range(40):
            once()
        self.assertEqual(count(), before)
        self.assertLess(tap.objects() - objects, 40)
        self.assertFalse(self.held(room))


tap.main()

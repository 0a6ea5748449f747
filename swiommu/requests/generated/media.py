"""Cameras, video codecs and displays: few, big, long-lived buffers, the clients that the 2010 discussion was about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.requests.generated.script import SECOND

if TYPE_CHECKING:
    from swiommu.requests.generated.script import Script

__all__ = ["camera", "codec", "display"]

# Frame sizes in bytes.
_PREVIEW = 1280 * 720 * 3 // 2  # NV12
_FULL_HD = 1920 * 1080 * 2  # YUYV
_FIVE_MEGAPIXELS = 2592 * 1944 * 2  # YUYV
_TWELVE_MEGAPIXELS = 15_000_000  # RAW10

# A hardware H.264 decoder of that time (MFC v5): constants of its driver.
_FIRMWARE = 384 << 10
_CONTEXT = 600 << 10
_DESCRIPTOR = 128 << 10
_SHARED = 8 << 10
_STREAM = 256 << 10
_LUMA_CHROMA = {"1080p": (2_088_960, 1_048_576), "720p": (983_040, 524_288)}


def camera(script: Script) -> None:
    """Two sensors: previews that come and go, videos, and now and then a photo in a hurry.

    Sessions arrive every 1.5 s on average and last 4 s; a photo takes one to three large buffers for half a second.
    """
    now = 0
    while (now := now + script.pause(1.5)) < script.duration:
        sensor = f"camera{script.random.randrange(2)}"
        size = script.random.choice((_PREVIEW, _PREVIEW, _FULL_HD, _FIVE_MEGAPIXELS))
        end = now + script.pause(4.0)
        for _ in range(script.random.randint(4, 8)):
            script.alloc(sensor, size, begin=now, end=end)
        if script.random.random() < 0.4:
            shot = now + script.pause(1.0)
            for _ in range(script.random.randint(1, 3)):
                script.alloc(sensor, _TWELVE_MEGAPIXELS, begin=shot, end=shot + SECOND // 2)


def codec(script: Script) -> None:
    """A decoder with firmware, up to four instances, and frames that are given back at a change of resolution."""
    script.alloc("codec", _FIRMWARE, begin=0, end=script.duration + 1)
    now = 0
    while (now := now + script.pause(6.0)) < script.duration:
        end = now + script.pause(12.0)
        for size in (_CONTEXT, _DESCRIPTOR, _SHARED, _STREAM):
            script.alloc("codec", size, begin=now, end=end)
        _frames(script, now, end)


def _frames(script: Script, begin: int, end: int) -> None:
    """The pictures of one instance; the stream changes its resolution about every 5 s."""
    while begin < end:
        change = min(begin + script.pause(5.0), end)
        luma, chroma = _LUMA_CHROMA[script.random.choice(("1080p", "720p"))]
        for _ in range(script.random.randint(4, 16) + 5):
            script.alloc("codec", luma, begin=begin, end=change)
            script.alloc("codec", chroma, begin=begin, end=change)
        begin = change + 1


def display(script: Script) -> None:
    """A full-HD screen with three buffers for ever, and a 4K window that opens sometimes."""
    for _ in range(3):
        script.alloc("display", 1920 * 1080 * 4, begin=0, end=script.duration + 1)
    now = 0
    while (now := now + script.pause(20.0)) < script.duration:
        end = now + script.pause(8.0)
        for _ in range(2):
            script.alloc("display", 3840 * 2160 * 4, begin=now, end=end)

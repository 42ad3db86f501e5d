"""eSpeak NG in this process, with exact phone times.

The library and its data come in the ``espeakng-loader`` wheel, of the extra ``synthesis``: eSpeak
NG is under the GPL, and nothing else here needs it. eSpeak keeps global state, some of
it (the position in its pitch flutter) beyond the reach of its own reset, so an
:class:`EspeakVoice` loads the library afresh and unloads it on close: what a voice says then
depends only on the seed and on what this voice has said before. One voice at a time per process.

eSpeak's phone names are translated to TIMIT's 61 phones by one table for all voices:

- A rhotic or centring diphthong is one eSpeak phone and two TIMIT phones: its time is halved.
- The silence that eSpeak plays before a plosive or affricate is that plosive's closure. Where it
  voices through the closure (most ``b d g``) there is no silence, and no closure is marked.
- The few milliseconds of silence before some fricatives stay with the phone before them.
"""

import _ctypes
import ctypes
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurize.stage import PipelineError

SAMPLE_RATE_HZ = 22050

_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_PHONEME_EVENTS = 1
_INITIALIZE_DONT_EXIT = 1 << 15
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_PARAMETER_RANGE = 4
_EVENT_LIST_TERMINATED = 0
_EVENT_WORD = 1
_EVENT_PHONEME = 7

# Shorter silences before a plosive are not heard as closures.
_MIN_CLOSURE_SAMPLES = round(0.012 * SAMPLE_RATE_HZ)

_PAUSES = frozenset({"_", "_:", "_!", "_|", "_::", "||"})
# Palatalisation and length marks: their samples belong to the phone before them.
_MODIFIERS = frozenset({";", "-", ":"})

# eSpeak's phones, vowels before consonants, and what each is among TIMIT's.
_PHONES = """
0=aa 3=axr 3:=er @=ax @2=ax @5=ax @L=el A:=aa A@=aa+r E=eh I=ih I#=ix I2=ix O=ao O2=ao O:=ao
O@=ao+r OI=oy U=uh U@=uh+r V=ah a=ae a#=ax aI=ay aI3=ay+axr aI@=ay+ax aU=aw aU@=aw+axr aa=ae
e@=eh+r eI=ey i=iy i:=iy i@=iy+ax i@3=ih+r o@=ao+r oU=ow u=uw u:=uw
?=q D=dh N=ng S=sh T=th Z=zh b=b d=d dZ=jh f=f g=g h=hh j=y k=k l=l m=m n=n n-=en p=p r=r r-=r
s=s t=t t#=dx t2=t tS=ch v=v w=w z=z
"""
_TO_TIMIT = {
    name: tuple(phones.split("+")) for name, phones in (pair.split("=") for pair in _PHONES.split())
}

_CLOSURE_OF = {
    "p": "pcl", "t": "tcl", "k": "kcl", "b": "bcl", "d": "dcl", "g": "gcl",
    "ch": "tcl", "jh": "dcl",
}  # fmt: skip


class SpokenSegment(NamedTuple):
    """A stretch of audio with a name, in samples of 22,050 Hz."""

    start_sample: int
    end_sample: int
    name: str


@dataclass(frozen=True)
class Speech:
    """What eSpeak said."""

    samples: NDArray[np.int16]  # (num_samples,) int16 at 22,050 Hz
    # TIMIT-61 phones, contiguous from 0 to num_samples; silence is ``h#`` at the ends, where there
    # is any, and ``pau`` inside
    phones: tuple[SpokenSegment, ...]
    # every word of the text in order. Where eSpeak speaks two words as one (``in the``), the
    # boundary between them is placed in proportion to their letters.
    words: tuple[SpokenSegment, ...]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def require_espeak() -> None:
    """Refuse to synthesise where the library is not installed."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise PipelineError(
            "synthetic speech needs eSpeak NG, which is not installed here (it is under the GPL): "
            "pip install 'spikeline[synthesis]'"
        )


class EspeakVoice:
    """A voice that reads text; use as a context manager, one at a time per process.

    Args:
        voice: eSpeak's voice and variant, such as ``en-us+m3``. A variant with an echo has no
            silences, so its closures cannot be found.
        rate_wpm: speaking rate, words per minute.
        pitch: eSpeak's base pitch, 0 to 99, relative to the voice's own.
        pitch_range: eSpeak's pitch range, 0 to 99; 0 is a monotone.
        seed: of eSpeak's own noise (breath).

    Raises:
        RuntimeError: when the library refuses to start or does not know the voice.
    """

    def __init__(
        self, voice: str, *, rate_wpm: int, pitch: int, pitch_range: int, seed: int
    ) -> None:
        self._chunks: list[NDArray[np.int16]] = []
        self._phones: list[tuple[int, str]] = []
        self._words: list[tuple[int, int]] = []
        self._callback = _Callback(self._receive)
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library: Any = library
        data_path = str(espeakng_loader.get_data_path()).encode()
        options = _INITIALIZE_PHONEME_EVENTS | _INITIALIZE_DONT_EXIT
        rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data_path, options)
        if rate != SAMPLE_RATE_HZ:
            raise RuntimeError(f"eSpeak NG did not start: it returned {rate}")
        library.espeak_SetSynthCallback(self._callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"eSpeak NG has no voice {voice!r}")
        for parameter, value in (
            (_PARAMETER_RATE, rate_wpm),
            (_PARAMETER_PITCH, pitch),
            (_PARAMETER_RANGE, pitch_range),
        ):
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        # Breath noise comes from the C library's generator.
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))

    def __enter__(self) -> "EspeakVoice":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unload the library and with it all of its state."""
        if self._library is not None:
            self._library.espeak_Terminate()
            handle = self._library._handle
            self._library = None
            _ctypes.dlclose(handle)

    def _receive(self, samples: Any, num_samples: int, events: Any) -> int:
        """Collect one block of audio and its events; eSpeak calls this while it speaks."""
        if samples and num_samples > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        index = 0
        while (event := events[index]).type != _EVENT_LIST_TERMINATED:
            if event.type == _EVENT_PHONEME:
                self._phones.append((event.sample, event.id.string.decode("ascii")))
            elif event.type == _EVENT_WORD:
                self._words.append((event.sample, event.text_position - 1))
            index += 1
        return 0

    def say(self, text: str) -> Speech:
        """Speak an ASCII text.

        Raises:
            RuntimeError: when eSpeak fails, or uses a phone that the table does not know.
        """
        self._chunks.clear()
        self._phones.clear()
        self._words.clear()
        encoded = text.encode("ascii")
        status = self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, 0, 0, _CHARS_UTF8, None, None
        )
        if status != 0 or not self._chunks:
            raise RuntimeError(f"eSpeak NG could not say {text!r} (status {status})")
        samples = np.concatenate(self._chunks)
        phones = _phone_segments(self._phones, samples)
        return Speech(samples, phones, _word_segments(text, self._words, phones))


def _phone_segments(
    events: Sequence[tuple[int, str]], samples: NDArray[np.int16]
) -> tuple[SpokenSegment, ...]:
    """Turn eSpeak's phone onsets into contiguous TIMIT segments over all samples."""
    segments = [SpokenSegment(0, events[0][0], "pau")]
    for (start, raw_name), (end, _) in zip(events, [*events[1:], (len(samples), "")], strict=True):
        name = raw_name.lstrip("',%=")
        if name in _MODIFIERS:
            segments[-1] = segments[-1]._replace(end_sample=end)
        elif name in _PAUSES:
            segments.append(SpokenSegment(start, end, "pau"))
        elif name in _TO_TIMIT:
            _append_phone(segments, start, end, _TO_TIMIT[name], samples)
        else:
            raise RuntimeError(f"eSpeak NG used phone {raw_name!r}, which has no TIMIT equivalent")
    merged: list[SpokenSegment] = []
    for segment in segments:
        if segment.start_sample == segment.end_sample:
            continue
        if merged and segment.name == "pau" == merged[-1].name:
            merged[-1] = merged[-1]._replace(end_sample=segment.end_sample)
        else:
            merged.append(segment)
    for end_index in (0, -1):
        if merged[end_index].name == "pau":
            merged[end_index] = merged[end_index]._replace(name="h#")
    return tuple(merged)


def _append_phone(
    segments: list[SpokenSegment],
    start: int,
    end: int,
    names: tuple[str, ...],
    samples: NDArray[np.int16],
) -> None:
    """Append a phone, with the silence before it as its closure if it is a plosive."""
    closure = _CLOSURE_OF.get(names[0])
    previous = segments[-1]
    if closure is not None and previous.name != "pau":
        sounding = np.flatnonzero(samples[previous.start_sample : start])
        silence_start = previous.start_sample + (int(sounding[-1]) + 1 if sounding.size else 0)
        if start - silence_start >= _MIN_CLOSURE_SAMPLES:
            segments[-1] = previous._replace(end_sample=silence_start)
            segments.append(SpokenSegment(silence_start, start, closure))
    if len(names) == 1:
        segments.append(SpokenSegment(start, end, names[0]))
    else:
        middle = (start + end) // 2
        segments += [SpokenSegment(start, middle, names[0]), SpokenSegment(middle, end, names[1])]


def _word_segments(
    text: str, events: Sequence[tuple[int, int]], phones: Sequence[SpokenSegment]
) -> tuple[SpokenSegment, ...]:
    """Give every word of the text its stretch of audio, from eSpeak's word onsets."""
    words: list[tuple[int, str]] = []
    position = 0
    for word in text.split(" "):
        words.append((position, word.strip(",")))
        position += len(word) + 1
    # A pause or the end of speech closes a word before the next one begins.
    pauses = [segment.start_sample for segment in phones if segment.name in ("pau", "h#")]
    end_of_speech = phones[-1].start_sample if phones[-1].name == "h#" else phones[-1].end_sample
    segments: list[SpokenSegment] = []
    for index, (start, first) in enumerate(events):
        last = index + 1 == len(events)
        next_start = end_of_speech if last else events[index + 1][0]
        next_position = len(text) if last else events[index + 1][1]
        end = min([next_start, *(pause for pause in pauses if start < pause)])
        spoken = [word for place, word in words if first <= place < next_position]
        num_letters = sum(map(len, spoken))
        done = 0
        for word in spoken:
            begin = start + (end - start) * done // num_letters
            done += len(word)
            segments.append(SpokenSegment(begin, start + (end - start) * done // num_letters, word))
    return tuple(segments)

"""A small grammar of read English: what the synthetic corpus says.

The words are chosen to lie in CMUdict and, together, to use all 39 of its phones. A sentence is
drawn by expanding templates whose slots name word classes; the classes are large enough that
sentences rarely repeat. Sentences are dealt to the training, development and test parts by a
hash of their text, so that no sentence is in two parts, whoever speaks it.
"""

import hashlib
import re
from typing import Literal

import numpy as np

Part = Literal["train", "dev", "test"]

# Of ten hash classes, dev and test have two each: fewer would make drawing them slow.
_NUM_HASH_CLASSES = 10
_PART_CLASSES: dict[Part, range] = {"train": range(0, 6), "dev": range(6, 8), "test": range(8, 10)}

_PERSON = """
    farmer teacher doctor sailor baker lawyer painter soldier captain boy girl woman man child
    father mother brother sister uncle cousin nurse judge student poet singer driver hunter miner
    neighbor stranger merchant prince princess queen king guard clerk author actor cowboy chef
    engineer librarian musician gardener fisherman shepherd widow pilot
"""
_ANIMAL = """
    horse dog cat bird fox wolf goat sheep cow donkey mouse rabbit turtle goose duck chicken bear
    lion tiger monkey eagle fish frog pony spider squirrel owl bee puppy kitten
"""
_THING = """
    book letter box chair table lamp basket bottle hammer knife spoon coat shoe hat ring coin
    watch mirror picture bell drum whistle rope wheel wagon boat kite ball toy treasure measure
    jewel cushion pillow blanket bucket shovel candle feather ladder oil apple orange onion
    pudding sugar cheese bread soup cake pie jam fruit potato paper package message journal
    thimble leather pen map key
"""
_PLACE = """
    house garden kitchen school church village town city market forest river lake mountain valley
    island harbor bridge road field farm barn castle tower palace station office library museum
    factory cottage beach desert meadow orchard cellar garage hill shore yard cave
"""
_ADJECTIVE = """
    old young little big small tall short long wide narrow heavy light bright dark red blue green
    yellow white black brown gray golden silver warm cold hot cool wet dry soft hard smooth rough
    sharp quick slow quiet loud gentle brave clever foolish happy sad angry hungry thirsty tired
    lazy busy proud humble rich poor strange usual unusual broken hidden empty full good bad
    beautiful ugly noisy enjoyable royal pure curious
"""
_TRANSITIVE = """
    carried found lost bought sold took brought kept dropped lifted pushed pulled watched followed
    painted cleaned washed opened closed burned buried measured joined enjoyed noticed wanted
    needed loved hated remembered forgot showed gave caught threw hid pointed
"""
_INTRANSITIVE = """
    walked ran jumped danced slept waited rested stood sat worked played laughed cried whispered
    shouted sang vanished wandered hurried traveled arrived returned stayed lived died smiled
    coughed sneezed argued listened
"""
_ADVERB = """
    slowly quickly quietly loudly gently bravely happily sadly carefully suddenly together alone
    again often never always soon early late usually finally
"""
_PREPOSITION = "near behind beside beyond under above across around toward through in by from"
_TIME = """
    yesterday today tonight this~morning last~evening last~winter in~the~summer on~sunday
    on~monday on~thursday after~dinner before~breakfast at~noon at~midnight every~day once
    one~year~ago two~hours~later three~days~ago
"""
_NUMBER = "two three four five six seven eight nine ten eleven twelve twenty several many few both"
_PLURAL = """
    horses birds books letters boxes chairs apples coins children soldiers sailors farmers boys
    girls men women houses roads trees flowers stones ships wheels dishes bridges voices shadows
    clouds stars leaves toys
"""
_PRONOUN = "he she they we you i it nobody someone everybody"
_AUXILIARY = "could would should might will must can't won't didn't"
_VERB = """
    carry find lose buy sell take bring keep push pull watch follow paint clean wash open close
    measure join enjoy notice want need love remember show give catch throw choose think~about
    look~at talk~about
"""
_MASS = "water gold milk honey music thunder weather snow smoke dust earth poison pleasure"
_OWNER = "my your his her our their"

_CLASSES: dict[str, tuple[str, ...]] = {
    name: tuple(words.replace("~", " ") for words in text.split())
    for name, text in {
        "person": _PERSON,
        "animal": _ANIMAL,
        "thing": _THING,
        "place": _PLACE,
        "adjective": _ADJECTIVE,
        "did": _TRANSITIVE,
        "went": _INTRANSITIVE,
        "adverb": _ADVERB,
        "preposition": _PREPOSITION,
        "time": _TIME,
        "number": _NUMBER,
        "plural": _PLURAL,
        "pronoun": _PRONOUN,
        "auxiliary": _AUXILIARY,
        "verb": _VERB,
        "mass": _MASS,
        "owner": _OWNER,
    }.items()
}

# Phrases expand into further templates; a template repeated is drawn more often.
_PHRASES: dict[str, tuple[str, ...]] = {
    "someone": (
        "the {person}",
        "the {adjective} {person}",
        "{owner} {person}",
        "the {animal}",
        "the {adjective} {animal}",
        "{owner} {adjective} {animal}",
        "{number} {adjective} {plural}",
    ),
    "something": (
        "the {thing}",
        "the {adjective} {thing}",
        "{owner} {adjective} {thing}",
        "{number} {plural}",
        "the {mass}",
        "some {mass}",
    ),
    "somewhere": (
        "{preposition} the {place}",
        "{preposition} the {adjective} {place}",
        "{preposition} {owner} {place}",
    ),
}

# A comma is a breath: eSpeak pauses there, and the transcript leaves it out.
_SENTENCES: tuple[str, ...] = (
    "{someone} {did} {something} {somewhere}",
    "{someone} {did} {something} {time}",
    "{someone} {went} {adverb} {somewhere}",
    "{someone} and {someone} {went} {somewhere}",
    "{time}, {someone} {did} {something}",
    "{time}, {someone} {went} {somewhere}",
    "{someone} {went} {somewhere}, but {someone} {went} {adverb}",
    "{pronoun} {auxiliary} {adverb} {verb} {something} {somewhere}",
    "{pronoun} {auxiliary} {verb} {something} and {something}",
    "when {someone} {went}, {someone} {did} {something}",
    "there was {mass} and {mass} {somewhere}",
    "{someone} was {adjective} and {adjective} {time}",
    "{someone} {did} {something} which {someone} {did}",
    "why {auxiliary} {someone} {verb} {something}",
)

_SLOT = re.compile(r"\{(\w+)\}")


def part_of(sentence: str) -> Part:
    """The part of the corpus a sentence belongs to, by a hash of its words."""
    digest = hashlib.sha256(transcript(sentence).encode()).digest()
    number = int.from_bytes(digest[:8], "big") % _NUM_HASH_CLASSES
    return next(part for part, classes in _PART_CLASSES.items() if number in classes)


def draw_sentence(rng: np.random.Generator, part: Part) -> str:
    """Draw a sentence of one part of the corpus.

    Args:
        rng: the only source of chance.
        part: the part the sentence must belong to.

    Returns:
        Lower-case words separated by single spaces, with a comma where a reader breathes.
    """
    while True:
        sentence = _SENTENCES[int(rng.integers(len(_SENTENCES)))]
        while (slot := _SLOT.search(sentence)) is not None:
            choices = _PHRASES.get(slot[1]) or _CLASSES[slot[1]]
            choice = choices[int(rng.integers(len(choices)))]
            sentence = sentence[: slot.start()] + choice + sentence[slot.end() :]
        if part_of(sentence) == part:
            return sentence


def transcript(sentence: str) -> str:
    """The sentence as LibriSpeech writes it: upper case, letters and apostrophes, no commas."""
    return sentence.replace(",", "").upper()

"""A small world and four invented languages that talk about it: the data of the trio.

The world is 48 facts about 16 people. Every language says the same things with other words and another word
order; names and punctuation are common to all. A and B are the original languages (O), C and D the new ones (N).
Everything derives from a seed, nothing is downloaded.
"""

import random

ORIGINAL, NEW = ("a", "b"), ("c", "d")
LANGUAGES = ORIGINAL + NEW

SPECIAL = ["<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<asst>", "<end>"]
PUNCTUATION = [".", "?", ":", ",", "[", "]"]
UNIVERSAL = ["@same", "@flip", "@json"]  # operators that mean the same in every language, in instructions only
NAMES = "Ana Bo Cleo Dan Eva Finn Gus Hana Ivo Jun Kai Lea Mio Nia Omar Pia".split()
HELD_OUT = NAMES[10:]  # never asked about in an instruction, only described in raw text

PLACES = [f"place{i}" for i in range(12)]
OBJECTS = [f"object{i}" for i in range(16)]
JOBS = [f"job{i}" for i in range(8)]
NOUNS = PLACES + OBJECTS + JOBS
GRAMMAR = "live like work put in is acc yes no and or".split()
OPERATORS = "where who what say repeat reverse".split()  # words for these are shared by no two languages
SHARED_WORDS = 72  # other words mean different things in different languages, as false friends do

DOCUMENT = 64  # tokens
INSTRUCTION_TASKS = ["where", "fact", "repeat", "reverse", "json", "same", "flip"]
RAW_TASKS = ["where", "who", "yesno", "fact", "repeat", "reverse"]


def words(count):
    """`count` distinct two-syllable words. A fixed list: the vocabulary does not depend on the seed."""
    rng = random.Random("words")
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    pairs = [a + b for a in syllables for b in syllables]
    return rng.sample(pairs, count)


def vocabulary():
    """All 128 tokens in id order."""
    return SPECIAL + PUNCTUATION + UNIVERSAL + NAMES + words(SHARED_WORDS + len(LANGUAGES) * len(OPERATORS))


class Language:
    """Concepts to words, and the word order: A is SVO; B is SOV with postpositions, an accusative and the question
    word last; C is VSO with an accusative; D is SOV with prepositions."""

    def __init__(self, letter, seed):
        self.letter = letter
        pool = words(SHARED_WORDS + len(LANGUAGES) * len(OPERATORS))
        shared = random.Random(f"{seed}/{letter}").sample(pool[:SHARED_WORDS], len(NOUNS) + len(GRAMMAR))
        first = SHARED_WORDS + LANGUAGES.index(letter) * len(OPERATORS)
        own = pool[first : first + len(OPERATORS)]
        self.lexicon = dict(zip(NOUNS + GRAMMAR + OPERATORS, shared + own))

    def say(self, *concepts):
        """Concepts to words; names and punctuation stay."""
        return [self.lexicon.get(c, c) for c in concepts]

    def _inside(self, place):
        return [place, "in"] if self.letter == "b" else ["in", place]

    def _object(self, thing):
        return [thing, "acc"] if self.letter in "bc" else [thing]

    def _clause(self, subject, verb, *rest):
        rest = [c for part in rest for c in part]
        order = {"a": [subject, verb, *rest], "c": [verb, subject, *rest]}
        return self.say(*order.get(self.letter, [subject, *rest, verb]))

    def _question(self, wh, *rest):
        return self.say(*rest, wh, "?") if self.letter == "b" else self.say(wh, *rest, "?")

    def put(self, name, thing, place):
        return self._clause(name, "put", self._object(thing), self._inside(place)) + ["."]

    def located(self, thing, place, end="."):
        return self._clause(thing, "is", self._inside(place)) + [end]

    def where_is(self, thing):
        return self._question("where", *(["is", thing] if self.letter in "ac" else [thing, "is"]))

    def who_put(self, thing):
        verb_first = self.letter in "ac"
        return self._question("who", *(["put", *self._object(thing)] if verb_first else [*self._object(thing), "put"]))

    def fact(self, name, verb, value):
        rest = {"live": self._inside, "like": self._object}.get(verb, lambda v: [v])(value)
        return self._clause(name, verb, rest) + ["."]

    def fact_question(self, name, verb):
        wh = "where" if verb == "live" else "what"
        return self._question(wh, *([verb, name] if self.letter == "c" else [name, verb]))


class World:
    """The facts, the languages, and the documents and instructions drawn from them."""

    def __init__(self, seed=0):
        rng = random.Random(f"{seed}/facts")
        self.facts = {
            (name, verb): rng.choice(values)
            for name in NAMES
            for verb, values in (("live", PLACES), ("like", OBJECTS), ("work", JOBS))
        }
        self.languages = {letter: Language(letter, seed) for letter in LANGUAGES}

    # Raw text

    def document(self, letter, rng):
        """One raw document of exactly 64 tokens, the first of them <bos>, in one language."""
        language, tokens = self.languages[letter], ["<bos>"]
        while len(tokens) < DOCUMENT:
            draw = rng.random()
            piece = self._facts if draw < 0.35 else self._story if draw < 0.8 else self._speech
            tokens += piece(language, rng)
        return tokens[:DOCUMENT]

    def _facts(self, language, rng):
        tokens = []
        for name, verb in rng.sample(sorted(self.facts), 3):
            value = self.facts[name, verb]
            if rng.random() < 0.5:
                tokens += language.fact(name, verb, value)
            else:
                tokens += language.fact_question(name, verb) + language.say(value, ".")
        return tokens

    def _events(self, rng, count):
        return list(zip(rng.sample(NAMES, count), rng.sample(OBJECTS, count), rng.sample(PLACES, count)))

    def _story(self, language, rng):
        events = self._events(rng, rng.choice([2, 3]))
        tokens = [word for event in events for word in language.put(*event)]
        for _ in range(3):
            name, thing, place = rng.choice(events)
            kind = rng.random()
            if kind < 0.3:
                tokens += language.located(thing, place)
            elif kind < 0.55:
                tokens += language.where_is(thing) + language.say(place, ".")
            elif kind < 0.75:
                tokens += language.who_put(thing) + [name, "."]
            else:
                asked = rng.choice(events)[2]
                tokens += language.located(thing, asked, "?") + language.say("yes" if asked == place else "no", ".")
        return tokens

    def _speech(self, language, rng):
        nouns = rng.sample(NOUNS, rng.randint(2, 4))
        parts = [("say", nouns), ("repeat", nouns), ("reverse", nouns[::-1])]
        return [word for operator, said in parts for word in language.say(operator, ":", *said, ".")]

    # Instructions

    def instruction(self, letter, task, rng, held_out=False):
        """(prompt, answer) as words, without the tokens of the chat form. `held_out`: ask about names never asked
        about in training; it matters for the task "fact" only."""
        language = self.languages[letter]
        if task == "where":
            events = self._events(rng, rng.choice([2, 3]))
            _, thing, place = rng.choice(events)
            return [w for e in events for w in language.put(*e)] + language.where_is(thing), language.say(place)
        if task == "fact":
            name = rng.choice(HELD_OUT if held_out else [n for n in NAMES if n not in HELD_OUT])
            verb = rng.choice(["live", "like", "work"])
            return language.fact_question(name, verb), language.say(self.facts[name, verb])
        nouns = language.say(*rng.sample(NOUNS, rng.randint(2, 4)))
        operator = f"@{task}" if f"@{task}" in UNIVERSAL else language.lexicon[task]
        if task == "json":
            answer = ["[", *[w for noun in nouns for w in (noun, ",")][:-1], "]"]
        else:
            answer = nouns[::-1] if task in ("reverse", "flip") else nouns
        return [operator, ":", *nouns], answer

    def raw_item(self, letter, task, rng):
        """(prompt, answer): a skill of the same kind, phrased as raw text; what a model without alignment can show."""
        language = self.languages[letter]
        if task == "fact":
            name, verb = rng.choice(sorted(self.facts))
            return ["<bos>", *language.fact_question(name, verb)], language.say(self.facts[name, verb], ".")
        if task in ("repeat", "reverse"):
            nouns = rng.sample(NOUNS, rng.randint(2, 4))
            prompt = language.say("say", ":", *nouns, ".", "repeat", ":")
            if task == "repeat":
                return ["<bos>", *prompt], language.say(*nouns, ".")
            return ["<bos>", *prompt, *language.say(*nouns, ".", "reverse", ":")], language.say(*nouns[::-1], ".")
        events = self._events(rng, rng.choice([2, 3]))
        name, thing, place = rng.choice(events)
        story = ["<bos>", *[word for event in events for word in language.put(*event)]]
        if task == "where":
            return story + language.where_is(thing), language.say(place, ".")
        if task == "who":
            return story + language.who_put(thing), [name, "."]
        asked = rng.choice(events)[2]
        return story + language.located(thing, asked, "?"), language.say("yes" if asked == place else "no", ".")


def chat(prompt):
    """The chat form up to the place where the assistant speaks: what the chat template renders."""
    return ["<bos>", "<user>", *prompt, "<asst>"]

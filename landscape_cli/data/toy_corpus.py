"""A parallel corpus that needs no file: sentences of a small grammar in German, French and English.

The languages differ in what makes translation more than a word by word exchange: French puts most adjectives after
the noun, German the infinitive at the end and, after an adverb, the verb before the subject.
"""

from __future__ import annotations

import random
from functools import cache


def _entries(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(entry.split()) for entry in text.replace("\n", "|").split("|") if entry.strip())


# German, its gender; French, its gender; English. No French noun begins with a vowel, which would eat the article's.
LIVING = _entries(
    """
    mann m monsieur m man | frau f femme f woman | baby n bébé m baby | mädchen n fille f girl | hund m chien m dog
    katze f chatte f cat | pferd n cheval m horse | fisch m poisson m fish | lehrer m professeur m teacher
    bäcker m boulanger m baker | sängerin f chanteuse f singer | maler m peintre m painter
    gärtner m jardinier m gardener | königin f reine f queen | bruder m frère m brother | schwester f sœur f sister
    """
)
THINGS = _entries(
    """
    buch n livre m book | brief m lettre f letter | haus n maison f house | auto n voiture f car | ball m ballon m ball
    stuhl m chaise f chair | tisch m table f table | blume f fleur f flower | mauer f mur m wall | brot n pain m bread
    kuchen m gâteau m cake | bild n tableau m picture | fenster n fenêtre f window | tür f porte f door
    boot n bateau m boat | stein m pierre f stone
    """
)
# German stem; French, masculine and feminine, and its place; English.
ADJECTIVES = _entries(
    """
    groß grand grande before big | klein petit petite before small | jung jeune jeune before young
    schön beau belle before beautiful | rot rouge rouge after red | grün vert verte after green
    blau bleu bleue after blue | schwarz noir noire after black | weiß blanc blanche after white
    krank malade malade after sick | ruhig calme calme after calm | schnell rapide rapide after fast
    """
)
# Third person and infinitive: German, French, English.
VERBS = _entries(
    """
    sieht sehen voit voir sees see | sucht suchen cherche chercher seeks seek | findet finden trouve trouver finds find
    kauft kaufen achète acheter buys buy | malt malen peint peindre paints paint
    zeigt zeigen montre montrer shows show | hebt heben soulève soulever lifts lift
    kennt kennen connaît connaître knows know | wäscht waschen lave laver washes wash
    verliert verlieren perd perdre loses lose | berührt berühren touche toucher touches touch
    verkauft verkaufen vend vendre sells sell
    """
)
MODALS = (("kann", "peut", "can"), ("muss", "doit", "must"), ("sollte", "devrait", "should"))
ADVERBS = (
    ("jetzt", "maintenant", "now"),
    ("oft", "souvent", "often"),
    ("bald", "bientôt", "soon"),
    ("manchmal", "parfois", "sometimes"),
    ("immer", "toujours", "always"),
)
PLACES = (
    ("im garten", "dans le jardin", "in the garden"),
    ("am strand", "sur la plage", "on the beach"),
    ("im wald", "dans la forêt", "in the forest"),
    ("auf dem markt", "sur le marché", "on the market"),
    ("in der küche", "dans la cuisine", "in the kitchen"),
    ("auf der straße", "dans la rue", "in the street"),
)
_ARTICLES = {  # by definiteness: German nominative and accusative by gender, French by gender, English
    True: ({"m": "der", "f": "die", "n": "das"}, {"m": "den", "f": "die", "n": "das"}, {"m": "le", "f": "la"}, "the"),
    False: (
        {"m": "ein", "f": "eine", "n": "ein"},
        {"m": "einen", "f": "eine", "n": "ein"},
        {"m": "un", "f": "une"},
        "a",
    ),
}
_STRONG = {"m": "er", "f": "e", "n": "es"}  # endings after an indefinite article in the nominative

Triple = tuple[str, str, str]  # German, French, English


@cache
def toy_sentences(train_lines: int, test_lines: int) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Return the train and the test lines, each in German, French and English; no sentence twice in any language.

    The same on every machine: only :meth:`random.Random.random` is drawn from, which Python promises to keep.
    """
    draws = random.Random(0)
    lines: dict[Triple, None] = {}
    while len(lines) < train_lines + test_lines:
        lines[_sentence(draws)] = None
    drawn = tuple(lines)
    return drawn[:train_lines], drawn[train_lines:]


def _one_of(draws: random.Random, entries: tuple) -> tuple:
    return entries[int(draws.random() * len(entries))]


def _sentence(draws: random.Random) -> Triple:
    subject, target = _phrase(draws, LIVING, False), _phrase(draws, LIVING + THINGS, True)
    verb = _one_of(draws, VERBS)
    modal = _one_of(draws, MODALS) if draws.random() < 0.4 else None
    adverb = _one_of(draws, ADVERBS) if draws.random() < 0.4 else ("", "", "")
    place = _one_of(draws, PLACES) if draws.random() < 0.4 else ("", "", "")
    finite = modal or verb[::2]
    german_end, french_end, english_end = verb[1::2] if modal else ("", "", "")
    # The German verb is second: after an adverb the subject follows it.
    german = (adverb[0], finite[0], subject[0]) if adverb[0] else (subject[0], finite[0])
    return (
        _joined(*german, target[0], place[0], german_end),
        _joined(adverb[1], subject[1], finite[1], french_end, target[1], place[1]),
        _joined(adverb[2], subject[2], finite[2], english_end, target[2], place[2]),
    )


def _phrase(draws: random.Random, nouns: tuple, accusative: bool) -> Triple:
    """An article, perhaps an adjective, and a noun."""
    german, gender, french, french_gender, english = _one_of(draws, nouns)
    definite = draws.random() < 0.5
    nominatives, accusatives, french_articles, english_article = _ARTICLES[definite]
    article = (accusatives if accusative else nominatives)[gender]
    if draws.random() >= 0.5:
        return (
            f"{article} {german}",
            f"{french_articles[french_gender]} {french}",
            f"{english_article} {english}",
        )
    stem, masculine, feminine, place, quality = _one_of(draws, ADJECTIVES)
    weak = "en" if accusative and gender == "m" else "e"
    ending = weak if definite or weak == "en" else _STRONG[gender]
    agreeing = masculine if french_gender == "m" else feminine
    words = (agreeing, french) if place == "before" else (french, agreeing)
    return (
        f"{article} {stem}{ending} {german}",
        f"{french_articles[french_gender]} {' '.join(words)}",
        f"{english_article} {quality} {english}",
    )


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)

import pytest
import sacrebleu
import torch
from torch.nn import functional

from landscape_cli.data.subwords import BEGIN, END, Subwords
from landscape_cli.distillation import translators
from landscape_cli.distillation.translators import Sentences
from landscape_cli.errors import BadInput, MeasurementFailed
from landscape_cli.models.encoder_decoder import EncoderDecoder
from landscape_cli.rng import generator

VOCABULARY = 17
TRAINING = {"epochs": 2, "batch_size": 4, "learning_rate": 3e-3}


def corpus(count=22, seed=0):
    """Sentences of 2 to 7 subwords and translations of 1 to 8, and begin and end."""
    draw = generator(seed, "corpus")
    source, target = torch.zeros(count, 9, dtype=torch.int64), torch.zeros(count, 11, dtype=torch.int64)
    for row in range(count):
        long = int(torch.randint(2, 8, (), generator=draw))
        other = max(1, long + int(torch.randint(-1, 2, (), generator=draw)))
        source[row, :long] = torch.randint(4, VOCABULARY, (long,), generator=draw)
        target[row, 0], target[row, other + 1] = BEGIN, END
        target[row, 1 : other + 1] = torch.randint(4, VOCABULARY, (other,), generator=draw)
    return Sentences(source, target)


def networks(seeds, dtype=torch.float64, dropout=0.1, students=1, vocabulary=VOCABULARY):
    sizes = {"hidden_size": 8, "ffn_size": 12, "num_layers": 1, "num_heads": 2, "max_length": 12}
    model = EncoderDecoder(VOCABULARY, vocabulary, **sizes, dropout=dropout)
    drawn = model.initialise([generator(seed, "initialisation") for seed in seeds])
    return model, {name: torch.cat([tensor.to(dtype)] * students) for name, tensor in drawn.items()}


def train(seeds, *, dtype=torch.float64, dropout=0.1, teachers=(None,), weights=(1.0,), **given):
    model, start = networks(seeds, dtype, dropout, len(weights))
    options = {"seeds": seeds, "stream": "test", "teachers": teachers, "weights": weights, **TRAINING, **given}
    return model, translators.train_translators(model, start, corpus(), **options)


def assert_like(found, expected, atol):
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol, msg=lambda text, name=name: name + text)


def epoch_of(sentences, seeds, batch_size=4):
    orders = [generator(seed, "minibatches", "test") for seed in seeds]
    return sentences.minibatches(batch_size, orders, generator(0, "order of minibatches", "test"))


def test_an_epoch_of_minibatches_has_every_sentence_once_for_each_seed():
    batches = epoch_of(corpus(), [3, 4])
    assert sorted(len(batch[0]) for batch in batches) == [2, 4, 4, 4, 4, 4]
    orders = torch.cat(batches, dim=1).tolist()
    assert [sorted(order) for order in orders] == [list(range(22))] * 2
    assert orders[0] != orders[1]
    (only,) = epoch_of(corpus(3), [1])  # fewer than one minibatch
    assert sorted(only[0].tolist()) == [0, 1, 2]


def test_minibatches_do_not_depend_on_the_seeds_beside():
    both, alone = epoch_of(corpus(), [3, 4]), epoch_of(corpus(), [4])
    assert all(batch[1].equal(own[0]) for batch, own in zip(both, alone, strict=True))


def test_minibatches_side_by_side_are_of_like_lengths():
    sentences = corpus(400)
    lengths = (sentences.target != 0).sum(dim=1)
    longest = torch.stack([lengths[batch].amax(dim=1) for batch in epoch_of(sentences, range(3), 10)])
    assert (longest.amax(dim=1) - longest.amin(dim=1)).max() <= 1
    assert longest[:, 0].tolist() != sorted(longest[:, 0].tolist())  # long ones do not all come last
    padding = sum((sentences.rows(batch)[1] == 0).sum() for batch in epoch_of(sentences, range(3), 10))
    plain = sum((sentences.rows(batch[None])[1] == 0).sum() for batch in torch.arange(400).split(10))
    assert padding / 3 < plain / 4


def test_training_is_adam_on_the_mean_cross_entropy():
    model, found = train([5], dropout=0.0)
    _, start = networks([5])
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    optimiser = torch.optim.Adam(leaves.values(), TRAINING["learning_rate"])
    sentences = corpus()
    orders, ranks = [generator(5, "minibatches", "test")], generator(0, "order of minibatches", "test")
    for _ in range(TRAINING["epochs"]):
        for (rows,) in sentences.minibatches(TRAINING["batch_size"], orders, ranks):
            source, target = sentences.source[None, rows], sentences.target[None, rows]
            logits = model.forward(leaves, source, target[:, :, :-1])
            loss = functional.cross_entropy(logits.flatten(0, 2), target[:, :, 1:].flatten(), ignore_index=0)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert_like(found, leaves, 1e-10)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_networks_in_a_stack_are_those_trained_alone(dtype, atol):
    known = translators.uniform(VOCABULARY)
    stack = {"teachers": (None, known), "weights": (1.0, 0.5), "epochs": 1}
    _, both = train([3, 4], dtype=dtype, **stack)
    for network in range(4):
        student, seed = divmod(network, 2)
        own = {name: (value[student],) for name, value in stack.items() if name != "epochs"}
        _, alone = train([3 + seed], dtype=dtype, epochs=1, **own)
        assert_like({name: tensor[network, None] for name, tensor in both.items()}, alone, atol)


def test_the_same_training_twice_is_the_same():
    (_, first), (_, second) = train([1, 2], dtype=torch.float32), train([1, 2], dtype=torch.float32)
    assert all(first[name].equal(second[name]) for name in first)


def test_training_leaves_what_it_starts_from():
    model, start = networks([1])
    kept = {name: tensor.clone() for name, tensor in start.items()}
    seen = []
    options = {"seeds": [1], "stream": "test", **TRAINING}
    watch = lambda epoch, parameters: seen.append((epoch, parameters["decoder_norm.bias"].clone()))  # noqa: E731
    found = translators.train_translators(model, start, corpus(), watch=watch, **options)
    assert all(start[name].equal(kept[name]) for name in kept)
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert seen[0][1].equal(kept["decoder_norm.bias"])
    assert seen[2][1].equal(found["decoder_norm.bias"])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_without_labels_the_gradient_is_that_of_the_cross_entropy_with_the_teacher(temperature):
    sentences, sources = corpus(), corpus(seed=1).source
    teacher, own = networks([8, 9])
    _, start = networks([1, 2])
    told = translators.teaching(teacher, own, sources, VOCABULARY, temperature)
    rows = torch.tensor([[0, 1, 2], [3, 4, 5]])
    found = translators._gradients(teacher, start, sentences, rows, [(0.0, told)], None, temperature)
    for k in range(2):
        leaves = {name: tensor[k, None].clone().requires_grad_() for name, tensor in start.items()}
        source, target = sentences.source[None, rows[k]], sentences.target[None, rows[k]]
        given, real = target[:, :, :-1], target[:, :, 1:] != 0
        right = teacher.forward({n: t[k, None] for n, t in own.items()}, sources[None, rows[k]], given)
        soft = torch.softmax(right[real] / temperature, dim=1)
        logits = teacher.forward(leaves, source, given)[real] / temperature
        loss = -(soft * logits.log_softmax(dim=1)).sum() / real.sum()
        expected = torch.autograd.grad(loss, list(leaves.values()))
        for name, gradient in zip(leaves, expected, strict=True):
            torch.testing.assert_close(found[name][k, None], gradient, rtol=0, atol=1e-12)


def test_with_labels_alone_the_teacher_is_not_asked():
    def unasked(*given):
        raise AssertionError

    (_, found), (_, alone) = train([1], teachers=(unasked,)), train([1])
    assert all(found[name].equal(alone[name]) for name in alone)


def test_an_ignorant_teacher_gives_all_subwords_the_same_probability():
    given = torch.zeros(2, 3, 4, dtype=torch.int64)
    answer = translators.uniform(5)(None, given, torch.zeros(2, 7, dtype=torch.int64))
    assert answer.shape == (2, 7, 5)
    assert answer.eq(0.2).all()
    # Without labels it draws all the subwords together.
    model, found = train([1], teachers=(translators.uniform(VOCABULARY),), weights=(0.0,), epochs=12)
    with torch.no_grad():
        sentences = corpus()
        shares = model.forward(found, sentences.source[None], sentences.target[None]).softmax(dim=3)
        before = model.forward(networks([1])[1], sentences.source[None], sentences.target[None]).softmax(dim=3)
    assert (shares - 1 / VOCABULARY).abs().mean() < (before - 1 / VOCABULARY).abs().mean() / 2


def test_a_teacher_of_another_vocabulary_is_refused():
    model, parameters = networks([1], vocabulary=VOCABULARY + 1)
    with pytest.raises(BadInput, match="18 classes, and the student has 17") as refused:
        translators.teaching(model, parameters, corpus().source, VOCABULARY)
    assert refused.value.exit_code == 2


def test_impossible_weights_are_refused():
    for wrong in ({"weights": (1.5,)}, {"temperature": 0.0}):
        with pytest.raises(BadInput, match=r"λ = 1\.5|T = 0"):
            train([1], **wrong)


def test_divergence_names_its_seeds():
    model, start = networks([6, 7, 8])
    start["encoder_norm.bias"][1] = float("nan")
    with pytest.raises(MeasurementFailed, match=r"for seeds \[7\]"):
        translators.train_translators(model, start, corpus(), seeds=[6, 7, 8], stream="test", **TRAINING)


def test_cross_entropy_is_the_mean_over_subwords(monkeypatch):
    model, parameters = networks([1, 2, 3])
    sentences = corpus()
    expected = []
    for k in range(3):
        own, total, count = {name: tensor[k, None] for name, tensor in parameters.items()}, 0.0, 0
        for source, target in zip(sentences.source, sentences.target, strict=True):
            shares = model.forward(own, source[None, None], target[None, None])[0, 0].softmax(dim=1)
            for t in range(int((target != 0).sum()) - 1):
                total -= float(shares[t, target[t + 1]].log())
                count += 1
        expected.append(total / count)
    for chunk in (1024, 12):  # all at once, and four at a time
        monkeypatch.setattr(translators, "CHUNK", chunk)
        found = translators.cross_entropy(model, parameters, sentences)
        assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_translations_are_the_greedy_ones_decoded(monkeypatch):
    texts = ["one two three", "two one", "three four two one", "four"] * 3
    subwords = Subwords.train(texts, 60)
    count = len(subwords)
    model = EncoderDecoder(VOCABULARY, count, hidden_size=8, ffn_size=12, num_layers=1, num_heads=2, max_length=12)
    parameters = model.initialise([generator(k, "translate") for k in range(2)])
    source = corpus().source
    expected = [subwords.decode(ids) for ids in model.greedy(parameters, source[None], BEGIN, END, 10)]
    for chunk in (1024, 6):
        monkeypatch.setattr(translators, "CHUNK", chunk)
        assert translators.translate(model, parameters, source, subwords, 10) == expected
    assert len(expected[0]) == 22
    assert expected[0] != expected[1]


def test_bleu_is_sacrebleus_of_normalised_references():
    said = ["the small cat sat on the mat", "a dog runs in the park now"]
    references = ["The  small cat sat on a mat", "A dog runs in the Park today"]
    lower = ["the small cat sat on a mat", "a dog runs in the park today"]
    assert translators.bleu(said, references) == pytest.approx(sacrebleu.corpus_bleu(said, [lower]).score / 100)
    assert 0.3 < translators.bleu(said, references) < 0.9
    assert translators.bleu(lower, references) == pytest.approx(1)

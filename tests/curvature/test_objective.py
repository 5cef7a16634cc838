import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape_cli.curvature import GaussNewton, Hessian, Objective, Rest, cross_entropy, dense, squared_error
from landscape_cli.errors import BadInput

IN, WIDTH, CLASSES, OBJECTS = 3, 4, 3, 5


@pytest.fixture(autouse=True)
def _float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield
    torch.set_default_dtype(before)


def objects(*shape):
    return torch.randn(OBJECTS, *shape), torch.randint(CLASSES, (OBJECTS,))


def network(*between):
    return nn.Sequential(nn.Linear(IN, WIDTH), *between, nn.Linear(WIDTH, CLASSES))


class Sequence(nn.Module):
    """Tokens (B, T, d) through a layer, their mean to a head."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        z = self.layer(x, x, x)[0] if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        return self.head(z.mean(dim=1))


class DropsInForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(IN, CLASSES)

    def forward(self, x):
        return functional.dropout(self.linear(x), 0.5)


def refusal(*given, **options):
    with pytest.raises(BadInput) as refused:
        Objective(*given, **options)
    return str(refused.value)


def test_losses_are_of_single_objects():
    outputs, (_, y) = torch.randn(OBJECTS, CLASSES), objects()
    by_hand = [math.log(sum(math.exp(v) for v in z)) - z[k] for z, k in zip(outputs.tolist(), y.tolist(), strict=True)]
    torch.testing.assert_close(cross_entropy(outputs, y), torch.tensor(by_hand))
    targets = torch.randn(OBJECTS, 2, 2)
    found = squared_error(torch.zeros(OBJECTS, 2, 2), targets)
    torch.testing.assert_close(found, torch.stack([(t**2).sum() for t in targets]))
    assert found.shape == (OBJECTS,)


def test_a_flat_vector_holds_the_parameters_in_the_modules_order(case):
    objective = case.objective
    assert objective.names == tuple(name for name, _ in case.net.named_parameters())
    assert objective.size == case.size == sum(objective.sizes)
    assert objective.dtype == torch.float64
    assert objective.objects == len(case.x)
    flat = objective.flatten(objective.parameters)
    assert torch.equal(flat, case.point)
    for name, tensor in case.net.named_parameters():
        assert torch.equal(flat[objective.slices[name]], tensor.detach().flatten())


def test_flatten_and_unflatten_undo_each_other_with_any_leading_axes(case):
    objective = case.objective
    for leading in ((), (3,), (2, 3)):
        vectors = torch.randn(*leading, objective.size)
        tensors = objective.unflatten(vectors)
        for name, tensor in case.net.named_parameters():
            assert tensors[name].shape == (*leading, *tensor.shape)
        assert torch.equal(objective.flatten(tensors), vectors)


def test_outputs_take_some_parameters_from_the_call():
    net, (x, y) = network(nn.Tanh()), objects(IN)
    objective = Objective(net, x, y)
    assert torch.equal(objective.outputs({}, x), net(x))
    weight = torch.randn(CLASSES, WIDTH)
    torch.testing.assert_close(objective.outputs({"2.weight": weight}, x), net[:2](x) @ weight.T + net[2].bias)


def test_parameters_are_chosen_by_name_and_pattern_in_the_modules_order():
    net, (x, y) = network(), objects(IN)
    assert Objective(net, x, y, parameters=["1.bias", "0.weight"]).names == ("0.weight", "1.bias")
    whole = Objective(net, x, y)
    assert whole.slices["1.bias"] == slice(28, 31)  # derived values are there and must not be handed on
    part = whole.part(["*.bias"])
    assert part.names == ("0.bias", "1.bias")
    assert part.size == WIDTH + CLASSES
    assert part.slices == {"0.bias": slice(0, 4), "1.bias": slice(4, 7)}
    assert part.part(["1.*"]).names == ("1.bias",)
    assert whole.size == 31
    with pytest.raises(BadInput, match=r"no parameter is named '0\.weight'"):
        part.part(["0.weight"])


@pytest.mark.parametrize("index", [slice(1, 4), torch.tensor([4, 0, 2])], ids=str)
def test_an_objective_of_some_objects(mlp, index):
    some = mlp.objective.of_objects(index)
    assert some.objects == 3
    assert torch.equal(some.x, mlp.x[index])
    torch.testing.assert_close(dense(Hessian(some)), mlp.hessians[index].mean(dim=0), rtol=0, atol=1e-10)
    assert mlp.objective.objects == len(mlp.x)


def test_the_module_is_not_changed():
    net, (x, y) = network(nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True)).eval(), objects(IN)
    net[0].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kept = x.clone()
    objective = Objective(net, x, y)
    for operator in (Hessian, GaussNewton, Rest):
        dense(operator(objective))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(tensor.grad is None for tensor in net.parameters())
    assert [tensor.requires_grad for tensor in net.parameters()] == [False] + [True] * 5
    assert torch.equal(x, kept)


def test_chunks_stay_within_what_there_is(case, little_memory):
    objective = case.objective
    for vectors in (1, 3, 1000):
        objects, together = objective.chunks(vectors)
        assert 1 <= objects <= objective.objects
        assert 1 <= together <= vectors
        assert objective.own_chunk(vectors) >= 1
        if little_memory == 1:
            assert (objects, together, objective.own_chunk(vectors)) == (1, 1, 1)


def test_enough_memory_takes_all_at_once(case):
    assert case.objective.chunks(20) == (case.objective.objects, 20)


BATCH = "takes the statistics of the batch, so an object has no loss of its own; call model.eval()"
RANDOM = "draws at random, so the loss is no function of the parameters; call model.eval()"


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(WIDTH), nn.BatchNorm1d(WIDTH, affine=False)])
def test_batch_norm_in_training_mode_is_refused(norm):
    assert refusal(network(norm).train(), *objects(IN)) == f"1 (BatchNorm1d) {BATCH}"


def test_batch_norm_without_running_statistics_is_refused_in_any_mode():
    net = network(nn.BatchNorm1d(WIDTH, track_running_stats=False)).eval()
    assert "takes the statistics of the batch" in refusal(net, *objects(IN))


def test_dropout_in_training_mode_is_refused():
    assert refusal(network(nn.Dropout(0.1)).train(), *objects(IN)) == f"1 (Dropout) {RANDOM}"
    assert refusal(network(nn.AlphaDropout(0.1)).train(), *objects(IN)) == f"1 (AlphaDropout) {RANDOM}"


def test_attention_with_dropout_in_training_mode_is_refused():
    net = Sequence(nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)).train()
    assert refusal(net, *objects(4, WIDTH)) == f"layer (MultiheadAttention) {RANDOM}"


def test_a_recurrent_layer_with_dropout_in_training_mode_is_refused():
    net = nn.Sequential(nn.LSTM(IN, WIDTH, 2, dropout=0.1)).train()
    assert refusal(net, *objects(IN)) == f"0 (LSTM) {RANDOM}"


def test_dropout_inside_forward_is_refused():
    message = refusal(DropsInForward().eval(), *objects(IN))
    assert message == "the loss differs when it is computed again: something draws at random; call model.eval()"


def test_a_loss_that_is_one_number_is_refused():
    for number, few in ((OBJECTS, 4), (2, 2), (1, 1)):
        x, y = (tensor[:number] for tensor in objects(IN))
        assert refusal(network(), x, y, functional.cross_entropy) == (
            f"the loss of {few} objects has the shape (); allowed: ({few},), one loss an object (reduction='none'), "
            "since Hessians of single objects are asked for"
        )


def test_a_loss_with_an_axis_too_many_is_refused():
    message = refusal(network(), *objects(IN), lambda z, y: cross_entropy(z, y)[:, None])
    assert "has the shape (4, 1); allowed: (4,)" in message


def test_a_loss_that_depends_on_the_batch_is_refused():
    message = refusal(network(), *objects(IN), lambda z, y: cross_entropy(z - z.mean(dim=0), y))
    assert message.startswith("the loss of an object depends on the others in its batch (")
    assert message.endswith(" alone); allowed: a loss that is the mean of one loss an object")
    assert " among 4, " in message


def test_values_that_are_not_finite_are_refused_by_name():
    net, (x, y) = network(nn.BatchNorm1d(WIDTH)).eval(), objects(IN)
    for bad in (math.nan, math.inf):
        for name in ("1.running_mean", "2.weight"):
            tensor = net.state_dict()[name]
            kept = float(tensor.flatten()[1])
            tensor.view(-1)[1] = bad
            expected = f"{name!r} has values that are not finite, so there is no curvature to measure"
            assert refusal(net, x, y) == expected
            tensor.view(-1)[1] = kept
    Objective(net, x, y)
    assert refusal(net, x * math.nan, y) == "the loss of an object is not finite at these parameters"
    far = x.clone()
    far[-1] = math.inf
    assert refusal(net, far, y) == f"the loss of object {len(x) - 1} is not finite at these parameters"


def test_an_unknown_parameter_is_refused_with_names_that_are_near():
    net, (x, y) = network(), objects(IN)
    message = refusal(net, x, y, parameters=["0.wieght"])
    assert message.startswith("no parameter is named '0.wieght'; for example '0.weight'")
    message = refusal(net, x, y, parameters=["0.weight", "zzz"])
    assert message == "no parameter is named 'zzz'; for example '0.weight', '0.bias', '1.weight'"


def test_no_objects_and_unequal_numbers_are_refused():
    x, y = objects(IN)
    assert refusal(network(), x[:0], y[:0]) == "0 objects and 0 targets; allowed: as many, at least one"
    assert refusal(network(), x, y[:3]) == "5 objects and 3 targets; allowed: as many, at least one"


def test_no_parameters_and_parameters_of_two_types_are_refused():
    assert refusal(nn.Flatten(), *objects(IN)) == "Flatten has no parameters, so there is no curvature"
    mixed = nn.Sequential(nn.Linear(IN, WIDTH), nn.Linear(WIDTH, CLASSES).float())
    assert refusal(mixed, *objects(IN)).startswith("the parameters differ in type or device: (torch.float32,")


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: network(nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True), nn.Dropout(0.5)).eval(), (IN,)),
        (lambda: network(nn.Dropout(0.0), nn.GELU()).train(), (IN,)),
        (lambda: Sequence(nn.TransformerEncoderLayer(WIDTH, 2, 6, batch_first=True)).eval(), (4, WIDTH)),
        (
            lambda: Sequence(nn.TransformerEncoderLayer(WIDTH, 2, 6, norm_first=True, batch_first=True)).eval(),
            (4, WIDTH),
        ),
        (lambda: Sequence(nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)).eval(), (4, WIDTH)),
    ],
    ids=["batch norm, in-place ReLU, dropout", "no dropout", "encoder layer", "pre-norm encoder layer", "attention"],
)
def test_what_is_allowed_has_products_that_are_right(build, shape):
    net = build()
    if isinstance(net, nn.Sequential) and isinstance(net[1], nn.BatchNorm1d):
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2)
    objective = Objective(net, *objects(*shape))
    for operator in (Hessian, GaussNewton, Rest):
        assert operator(objective).verify() < 1e-12


def test_the_fast_path_of_attention_is_put_back(mlp):
    seen = []

    def fails(outputs, y):
        seen.append(torch.backends.mha.get_fastpath_enabled())
        raise ZeroDivisionError

    assert torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError):
        Objective(mlp.net, mlp.x, mlp.y, fails)
    assert seen == [False]
    assert torch.backends.mha.get_fastpath_enabled()

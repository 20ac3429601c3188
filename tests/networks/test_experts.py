"""Every expert takes its share of each image's tokens, and what it says goes back where the tokens were."""

import pytest
import torch
import torch.nn.functional as F

from smallbatch.errors import UserError
from smallbatch.networks.bias_free import Start
from smallbatch.networks.experts import ExpertChoice, Experts, fewest_tokens, seats

cases = pytest.mark.parametrize


def layer(experts: int = 8, capacity: float = 2.0) -> ExpertChoice:
    torch.manual_seed(0)
    made = ExpertChoice(6, 10, experts, capacity, Start(0.02, 0.02))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def tokens(n: int = 16, rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, n, 6, generator=torch.Generator().manual_seed(1))


def seated(made: ExpertChoice, x: torch.Tensor) -> torch.Tensor:
    """The tokens in every seat, (b, experts, seats, d)."""
    given = []
    made.experts.register_forward_pre_hook(lambda experts, arguments: given.append(arguments[0]))
    made(x)
    return given[0]


def one_hot(made: ExpertChoice, x: torch.Tensor) -> torch.Tensor:
    """The published form: products with a matrix that says which token sits where."""
    share, taken = made.router(x).softmax(2).mT.topk(int(made.capacity * x.shape[1] / made.router.out_features), dim=2)
    sits = F.one_hot(taken, x.shape[1]).float()
    hidden = F.gelu(torch.einsum("bekn,bnd,edh->bekh", sits, x, made.experts.enter))
    return torch.einsum("bekn,bek,bekh,ehd->bnd", sits, share, hidden, made.experts.out)


@cases("n", [4, 7, 16, 64])
def test_every_expert_takes_its_share_of_each_image(n):
    taken = seated(layer(), tokens(n))
    assert taken.shape == (3, 8, int(2 * n / 8), 6)
    for row, image in zip(taken, tokens(n), strict=True):
        for chosen in row:
            found = (chosen[:, None] == image).all(dim=2).int()
            assert found.sum(dim=1).eq(1).all() and found.sum(dim=0).le(1).all()  # its own image's, none twice


def test_an_expert_takes_those_that_the_router_gives_it_most_of():
    made, x = layer(), tokens()
    shares = made.router(x).softmax(dim=2)
    expected = torch.stack([image[share.topk(4, dim=0).indices.T] for image, share in zip(x, shares, strict=True)])
    assert torch.equal(seated(made, x), expected)


@cases("n, experts, capacity", [(16, 8, 2.0), (7, 8, 2.0), (5, 3, 1.5), (9, 1, 1.0)])
def test_it_equals_the_dense_form_with_its_gradients(n, experts, capacity):
    made, (x, like) = layer(experts, capacity), (tokens(n).requires_grad_() for _ in range(2))
    wanted = [*made.parameters()]
    found, expected = made(x), one_hot(made, like)
    pull = torch.randn(found.shape)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found, [x, *wanted], pull), torch.autograd.grad(expected, [like, *wanted], pull)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@cases("sure, of_first", [(0.1, 0), (100, 8)])
def test_a_token_is_the_sum_of_what_its_experts_say_be_they_none_or_all(sure, of_first):
    made, x = layer(), tokens(64)
    made.router.weight.data *= sure
    x[:, 0] = 0  # of which the router gives each expert an eighth; where it is sure, that is much
    shares = made.router(x).softmax(dim=2)
    picked = torch.zeros(3, 64, 8).scatter(1, shares.topk(16, dim=1).indices, 1.0)
    said = torch.einsum("bnd,edh->benh", x, made.experts.enter)
    said = torch.einsum("benh,ehd->bned", F.gelu(said), made.experts.out)
    torch.testing.assert_close(made(x), torch.einsum("bne,bned->bnd", shares * picked, said), rtol=1e-4, atol=1e-4)
    assert of_first in picked.sum(dim=2)[:, 0] and picked.sum(dim=2).mean() == 2


def test_an_image_does_not_depend_on_its_neighbours_nor_a_token_on_the_order():
    made, x, order = layer(), tokens(), torch.randperm(16)
    torch.testing.assert_close(made(x)[1:2], made(x[1:2]))
    torch.testing.assert_close(made(x[:, order]), made(x)[:, order])


def test_bfloat16_agrees_with_float32_where_experts_choose_alike():
    made, x = layer(experts=2, capacity=2.0), tokens()  # every expert takes every token
    with torch.autocast("cpu", torch.bfloat16):
        found = made(x)
    torch.testing.assert_close(found.float(), made(x), rtol=0.05, atol=0.05 * made(x).std().item())


def test_expert_weights_lie_in_a_type_of_their_own_and_the_router_outside():
    made = layer()
    own = [p for part in made.modules() if isinstance(part, Experts) for p in part.parameters()]
    assert [p.shape for p in own] == [(8, 6, 10), (8, 10, 6)] and made.router.bias is None


def test_impossible_seats_are_refused_with_a_remedy():
    with pytest.raises(UserError, match=r"capacity=9: 18 seats .* more seats than tokens, 16: use at most 8"):
        seats(16, 8, 9.0)
    with pytest.raises(UserError, match=r"capacity=2 of 8 experts leaves no seat at 3 tokens: it takes at least 4"):
        layer()(tokens(3))


@cases("experts, capacity", [(8, 2.0), (8, 3.0), (4, 0.5), (3, 3.0)])
def test_the_fewest_tokens_are_those_that_seat_one(experts, capacity):
    fewest = fewest_tokens(experts, capacity)
    assert seats(fewest, experts, capacity) == 1
    with pytest.raises(UserError):
        seats(fewest - 1, experts, capacity)

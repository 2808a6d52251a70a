"""Ids that something else than an embedding looks up: bags and tables of weights, beside autograd at the rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import xaicli

IDS = torch.tensor([[1, 5, 0, 0], [2, 2, 7, 0], [9, 3, 4, 6]])


class Bag(nn.Module):
    """Bags of ids, and the same from rows of embeddings."""

    def __init__(self, mode: str, padding: int | None = 0, **more: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.bag = nn.EmbeddingBag(12, 5, mode=mode, padding_idx=padding, **more)
        self.head = nn.Linear(5, 3)
        self.mode, self.padding = mode, padding

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(3 * self.bag(ids)))

    def of_rows(self, rows: Tensor, ids: Tensor) -> Tensor:
        found = []
        for row, these in zip(rows, ids.tolist(), strict=True):
            kept = torch.stack([row[i] for i, token in enumerate(these) if token != self.padding])
            found.append({"sum": kept.sum(0), "mean": kept.mean(0), "max": kept.amax(0)}[self.mode])
        return self.head(torch.tanh(3 * torch.stack(found)))

    @property
    def table(self) -> Tensor:
        return self.bag.weight


class Table(nn.Module):
    """A table of weights, looked up in different ways."""

    def __init__(self, look: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table, self.head, self.look = nn.Parameter(torch.randn(12, 5)), nn.Linear(5, 3), look

    def forward(self, ids: Tensor) -> Tensor:
        return self.of_rows(self.look(self.table, ids), ids)

    def of_rows(self, rows: Tensor, ids: Tensor) -> Tensor:
        del ids
        return self.head(torch.tanh(rows).mean(1))


LOOKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "table[ids]": lambda table, ids: table[ids],
    "negative ids": lambda table, ids: table[ids - 12],
    "index_select": lambda table, ids: table.index_select(0, ids.reshape(-1)).view(*ids.shape, -1),
}
MODELS: dict[str, Callable[[], Bag | Table]] = {
    **{f"bag, {mode}": lambda mode=mode: Bag(mode) for mode in ("sum", "mean", "max")},  # type: ignore[misc]
    "bag without padding": lambda: Bag("mean", None),
    **{name: lambda look=look: Table(look) for name, look in LOOKS.items()},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", MODELS)
def test_ids_are_explained_at_their_rows_of_the_table(name: str) -> None:
    model = MODELS[name]().eval()
    own = model(IDS).detach()
    rows = functional.embedding(IDS, model.table).detach().requires_grad_()
    scores = model.of_rows(rows, IDS)
    torch.testing.assert_close(scores, own)
    target = own.argmax(1)
    gradient = torch.autograd.grad(scores.gather(1, target[:, None]).sum(), rows)[0]
    found = xaicli.saliency(model, IDS, methods=("gradient", "integrated"), integrating=(64, 0), device="cpu")
    assert found.predictions.tolist() == target.tolist()
    assert found.attributions["gradient"].shape == (3, 4, 5)
    np.testing.assert_allclose(found.attributions["gradient"], gradient, atol=1e-5)
    assert found.maps["gradient"].shape == (3, 1, 4)
    if "max" not in name:
        assert np.nanmax(found.delta["integrated"]) < 0.05


def test_a_bag_that_bounds_its_rows_is_explained_at_the_bounded_ones_and_keeps_its_table() -> None:
    model = Bag("mean", max_norm=1.0).eval()
    table = model.table.detach().clone()
    found = xaicli.saliency(model, IDS, methods="gradient", device="cpu")
    assert torch.equal(model.table, table)
    rows = (table * (1 / table.norm(dim=1, keepdim=True)).clamp(max=1))[IDS].requires_grad_()
    scores = model.of_rows(rows, IDS)
    assert found.predictions.tolist() == scores.argmax(1).tolist()
    wanted = torch.autograd.grad(scores.amax(1).sum(), rows)[0]
    np.testing.assert_allclose(found.attributions["gradient"], wanted, atol=1e-5)


def test_a_bag_with_a_weight_for_each_id() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.bag, self.head = nn.EmbeddingBag(12, 5, mode="sum"), nn.Linear(5, 3)

        def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
            return self.head(self.bag(ids, per_sample_weights=scale))

    model, scale = Weighted().eval(), torch.rand(3, 4) + 0.5
    own = model(IDS, scale).detach()
    found = xaicli.saliency(model, {"ids": IDS, "scale": scale}, methods="gradient", device="cpu")
    at = model.head.weight[own.argmax(1)].detach()
    np.testing.assert_allclose(found.attributions["gradient"]["ids"], scale[..., None] * at[:, None], atol=1e-6)
    rows = functional.embedding(IDS, model.bag.weight).detach()
    np.testing.assert_allclose(found.attributions["gradient"]["scale"], (rows * at[:, None]).sum(-1), atol=1e-5)


@pytest.mark.parametrize("name", ["bag, mean", "table[ids]", "index_select"])
def test_a_checkpoint_of_such_a_model(xai: Any, name: str, tmp_path: Path) -> None:
    model = MODELS[name]().eval()
    with xaicli.Run(tmp_path / "run") as run:
        run.log_inputs(range(3), IDS)
        run.save_checkpoint(model, example_inputs=IDS[:2])
    output = ("--methods", "gradient", "--format", "json", "-o", tmp_path / "out")
    status, _, err = xai("saliency", tmp_path / "run", "--model", "ckpt.pt", "-q", *output)
    assert status == 0, err
    own = xaicli.saliency(model, IDS, methods="gradient", device="cpu")
    with np.load(tmp_path / "out" / "maps.npz") as maps:
        np.testing.assert_allclose(maps["attribution/gradient"], own.attributions["gradient"], atol=1e-5)


def test_what_no_look_up_makes_explainable_is_refused_with_the_way_out() -> None:
    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(12, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(functional.one_hot(ids, 12).float().mean(1))

    with pytest.raises(xaicli.XaiError, match="no input with a gradient") as said:
        xaicli.saliency(Codes(), IDS, methods="gradient", device="cpu")
    assert "EmbeddingBag" in said.value.hint
    assert "one-hot" in said.value.hint
    codes = functional.one_hot(IDS, 12).float()
    found = xaicli.saliency(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), codes, methods="gradient", device="cpu")
    assert found.attributions["gradient"].shape == (3, 4, 12)


ROWS = torch.stack([torch.tensor([1, 4, 0, 2, 3]), torch.tensor([6, 0, 5, 2, 2]), torch.tensor([3, 3, 1, 0, 2])], 1)


class Columns(nn.Module):
    """A table of three categories, each with an embedding of its own width."""

    def __init__(self, take: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.tables = nn.ModuleList(nn.Embedding(n, width) for n, width in ((5, 3), (8, 4), (4, 2)))
        self.hidden, self.head, self.take = nn.Linear(9, 6), nn.Linear(6, 3), take

    def forward(self, rows: Tensor) -> Tensor:
        found = [table(ids) for table, ids in zip(self.tables, self.take(rows), strict=True)]
        return self.head(torch.tanh(self.hidden(torch.cat(found, -1).flatten(1))))


def at_embeddings(model: nn.Module, ids: Tensor, *more: Tensor) -> list[Tensor]:
    """d (score of the prediction) / d (what each embedding answered), by autograd alone, in the order of the calls."""
    seen: list[Tensor] = []
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]

    def keep(_: nn.Module, __: Any, result: Tensor) -> Tensor:
        seen.append(result.detach().requires_grad_())
        return seen[-1]

    hooks = [table.register_forward_hook(keep) for table in tables]
    scores = model(ids, *more)
    for hook in hooks:
        hook.remove()
    return list(torch.autograd.grad(scores.max(1).values.sum(), seen))


TAKES: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "columns": lambda x: (x[:, 0], x[:, 1], x[:, 2]),
    "converted columns": lambda x: tuple(x[:, i].long() for i in range(3)),
    "columns kept as axes": lambda x: (x[:, :1], x[:, 1:2], x[:, 2:]),
    "unbind": lambda x: x.unbind(1),
    "split": lambda x: x.split(1, dim=1),
    "chunk of a transposed table": lambda x: tuple(part.squeeze(0) for part in x.t().chunk(3)),
    "select": lambda x: tuple(x.select(1, i) for i in range(3)),
}


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
@pytest.mark.parametrize("name", TAKES)
def test_categories_of_a_table_are_explained_by_column(name: str, dtype: torch.dtype) -> None:
    model = Columns(lambda x: tuple(ids.long() for ids in TAKES[name](x))).eval()
    found = xaicli.saliency(
        model, ROWS.to(dtype), methods=("gradient", "integrated"), integrating=(64, 0), device="cpu", precision="fp32"
    )
    assert found.predictions.tolist() == model(ROWS).argmax(1).tolist()
    gradient = found.attributions["gradient"]
    assert gradient.shape == (5, 3, 4)
    for column, expected in enumerate(at_embeddings(model, ROWS)):
        width = expected.shape[-1]
        np.testing.assert_allclose(gradient[:, column, :width], expected.reshape(5, width), atol=1e-6)
        assert not gradient[:, column, width:].any()
    assert np.nanmax(found.delta["integrated"]) < 0.05


def test_two_embeddings_of_one_column_stand_side_by_side() -> None:
    class WideAndDeep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(6)
            self.wide, self.one, self.other = nn.Embedding(5, 3), nn.Embedding(5, 2), nn.Embedding(8, 2)
            self.head = nn.Linear(4, 3)

        def forward(self, rows: Tensor) -> Tensor:
            first, second = rows[:, 0], rows[:, 1]
            return self.wide(first) + self.head(torch.cat([self.one(first), self.other(second)], -1).tanh())

    model = WideAndDeep().eval()
    found = xaicli.saliency(model, ROWS[:, :2], methods="gradient", device="cpu").attributions["gradient"]
    wide, one, other = at_embeddings(model, ROWS[:, :2])
    assert found.shape == (5, 2, 5)
    np.testing.assert_allclose(found[:, 0], torch.cat([wide, one], -1), atol=1e-6)
    np.testing.assert_allclose(found[:, 1, :2], other, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint8])
def test_texts_that_go_in_transposed_and_as_any_whole_numbers(dtype: torch.dtype) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(7)
            self.words, self.cell, self.head = nn.Embedding(12, 5), nn.RNN(5, 6), nn.Linear(6, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.cell(self.words(ids.long().t()))[0][-1])

    model = Recurrent().eval()
    found = xaicli.saliency(model, IDS.to(dtype), methods="gradient", device="cpu")
    (expected,) = at_embeddings(model, IDS)
    assert found.attributions["gradient"].shape == (3, 4, 5)
    np.testing.assert_allclose(found.attributions["gradient"], expected.transpose(0, 1), atol=1e-6)


def test_a_graph_of_columns_is_explained_as_its_model() -> None:
    model = Columns(TAKES["columns"]).eval()
    graph = torch.export.export(model, (ROWS,), dynamic_shapes={"rows": {0: torch.export.Dim("n")}}).module()
    own = xaicli.saliency(model, ROWS, methods="gradient", device="cpu")
    found = xaicli.saliency(graph, ROWS, methods="gradient", device="cpu")
    np.testing.assert_allclose(found.attributions["gradient"], own.attributions["gradient"], atol=1e-6)


def test_numbers_among_ids_and_ids_among_numbers_are_refused_by_column() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(8, 4), nn.Linear(6, 3)

        def forward(self, rows: Tensor) -> Tensor:
            return self.head(torch.cat([self.table(rows[:, 1].long()), rows[:, ::2].float()], -1))

    with pytest.raises(xaicli.XaiError, match=r"columns 0, 2 of rows: read as numbers") as said:
        xaicli.saliency(Mixed(), ROWS, methods="gradient", device="cpu")
    assert "forward(ids, numbers)" in said.value.hint
    with pytest.raises(xaicli.XaiError, match=r"column 1 of rows: ids among numbers") as said:
        xaicli.saliency(Mixed(), ROWS.float(), device="cpu")
    assert "forward(ids, numbers)" in said.value.hint
    # What the gradient says of the numbers is true whatever the ids are.
    model, rows = Mixed(), ROWS.float().requires_grad_()
    alone = xaicli.saliency(model, ROWS.float(), methods="gradient", device="cpu").attributions["gradient"]
    np.testing.assert_allclose(alone, torch.autograd.grad(model(rows).max(1).values.sum(), rows)[0], atol=1e-6)
    with pytest.raises(xaicli.XaiError, match="holds ids as floats"):
        xaicli.saliency(Columns(lambda x: x.long().unbind(1)), ROWS.float(), methods="gradient", device="cpu")


def test_a_column_that_nothing_reads_is_told() -> None:
    model = Columns(lambda x: (x[:, 0], x[:, 1], x[:, 3])).eval()
    rows = torch.cat([ROWS[:, :2], torch.full((5, 1), 99), ROWS[:, 2:]], 1)
    found = xaicli.saliency(model, rows, methods="gradient", device="cpu")
    assert not found.attributions["gradient"][:, 2].any()
    np.testing.assert_allclose(found.attributions["gradient"][:, 3, :2], at_embeddings(model, rows)[2], atol=1e-6)
    assert any("column 2 of rows: looked up by no embedding" in note for note in found.answer.warnings)


def test_a_graph_takes_bytes_that_are_ids_as_the_whole_numbers_it_was_exported_with() -> None:
    model = Table(LOOKS["table[ids]"]).eval()
    graph = torch.export.export(model, (IDS,), dynamic_shapes={"ids": {0: torch.export.Dim("n")}}).module()
    own = xaicli.saliency(model, IDS, methods="gradient", device="cpu")
    found = xaicli.saliency(graph, IDS.to(torch.uint8), methods="gradient", device="cpu")
    np.testing.assert_allclose(found.attributions["gradient"], own.attributions["gradient"], atol=1e-6)


class Weighed(nn.Module):
    """Each place of what is looked up counts as much as its number, so that the gradient says where a token stood."""

    def __init__(self, arranged: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.table, self.head, self.arranged = nn.Embedding(12, 5), nn.Linear(5, 3), arranged

    def forward(self, ids: Tensor) -> Tensor:
        rows: Tensor = self.table(self.arranged(ids))
        scores: Tensor = self.head((rows * torch.arange(1, rows.shape[1] + 1)[:, None]).sum(1))
        return scores


def _first_put(ids: Tensor) -> Tensor:
    shifted = ids.new_zeros(ids.shape)
    shifted[:, 1:] = ids[:, :-1].clone()
    shifted[:, 0] = 2
    return shifted


def _in_place(ids: Tensor) -> Tensor:
    changed = ids.clone()
    changed[:, 0] = 1
    return changed


def _own(ids: Tensor, token: int) -> Tensor:
    return ids.new_full((ids.shape[0], 1), token)


REMAP = torch.tensor([3, 1, 4, 11, 5, 9, 2, 6, 8, 7, 10, 0])
ARRANGED: dict[str, tuple[Callable[[Tensor], Tensor], list[int]]] = {
    "a token before": (lambda ids: torch.cat([_own(ids, 2), ids], 1), [2, 3, 4, 5]),
    "a token behind": (lambda ids: torch.cat([ids, torch.full((len(ids), 1), 3)], 1), [1, 2, 3, 4]),
    "tokens around": (lambda ids: torch.cat([_own(ids, 2), ids, _own(ids, 3)], 1), [2, 3, 4, 5]),
    "padded": (lambda ids: functional.pad(ids, (2, 1), value=7), [3, 4, 5, 6]),
    "shifted": (lambda ids: torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1), [2, 3, 4, 0]),
    "shifted by assignment": (_first_put, [2, 3, 4, 0]),
    "the first one replaced": (_in_place, [0, 2, 3, 4]),
    "rolled": (lambda ids: ids.roll(1, 1), [2, 3, 4, 1]),
    "flipped": (lambda ids: ids.flip(1), [4, 3, 2, 1]),
    "renumbered by a table, flipped": (lambda ids: REMAP[ids.flip(1)], [4, 3, 2, 1]),
    "offsets added": (lambda ids: (ids + torch.arange(4)) % 12, [1, 2, 3, 4]),
    "twice": (lambda ids: ids.repeat(1, 2), [6, 8, 10, 12]),
    "detached and flipped": (lambda ids: ids.data.flip(1), [4, 3, 2, 1]),
}


@pytest.mark.parametrize("name", ARRANGED)
def test_each_token_is_explained_where_it_stands_in_the_input(name: str) -> None:
    arranged, counts = ARRANGED[name]
    model = Weighed(arranged).eval()
    found = xaicli.saliency(model, IDS, methods=("gradient", "integrated"), device="cpu")
    at = model.head.weight[model(IDS).argmax(1)].detach()
    np.testing.assert_allclose(
        found.attributions["gradient"], torch.tensor(counts)[None, :, None] * at[:, None], atol=1e-5
    )
    # The model is linear in its rows: the path from the baseline is exact, the model's own tokens stay on it.
    assert np.nanmax(found.delta["integrated"]) < 1e-4


@pytest.mark.parametrize("name", ["a token before", "tokens around", "padded", "rolled", "shifted"])
def test_a_graph_follows_tokens_as_its_model_does(name: str) -> None:
    model = Weighed(ARRANGED[name][0]).eval()
    graph = torch.export.export(model, (IDS,), dynamic_shapes={"ids": {0: torch.export.Dim("n")}}).module()
    own = xaicli.saliency(model, IDS, methods="gradient", device="cpu")
    found = xaicli.saliency(graph, IDS, methods="gradient", device="cpu")
    np.testing.assert_allclose(found.attributions["gradient"], own.attributions["gradient"], atol=1e-6)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda ids: ids.sort(1).values,
        lambda ids: ids.cumsum(1) % 12,
        lambda ids: (ids + ids.roll(1, 1)) % 12,
        lambda ids: torch.tensor(ids.tolist()),
    ],
    ids=["sorted", "sums", "pairs", "lists"],
)
def test_ids_of_which_it_is_not_known_whose_they_are_are_refused(mixed: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(xaicli.XaiError, match=r"no input with a gradient: .*computes from ids.* whose they are"):
        xaicli.saliency(Weighed(mixed), IDS, methods="gradient", device="cpu")


def test_two_inputs_that_one_call_looks_up_are_explained_each_at_its_own() -> None:
    class Pair(Weighed):
        def forward(self, one: Tensor, other: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(torch.cat([one, other], 1))

    model = Pair(lambda ids: ids).eval()
    one, other = IDS[:, :2], IDS[:, 2:]
    found = xaicli.saliency(model, [one, other], methods=("gradient", "integrated"), device="cpu")
    at = model.head.weight[model(one, other).argmax(1)].detach()[:, None]
    gradients = list(found.attributions["gradient"].values())
    np.testing.assert_allclose(gradients[0], torch.tensor([1.0, 2.0])[:, None] * at, atol=1e-5)
    np.testing.assert_allclose(gradients[1], torch.tensor([3.0, 4.0])[:, None] * at, atol=1e-5)
    assert np.nanmax(found.delta["integrated"]) < 1e-4


class Twice(nn.Module):
    """Ids looked up as they are, and again as something else, in the same table or in another."""

    def __init__(self, again: Callable[[Tensor], Tensor], *, shared: bool) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.words = nn.Embedding(12, 5)
        self.others = self.words if shared else nn.Embedding(12, 5)
        self.head, self.again = nn.Linear(5, 3), again

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head((self.words(ids) + 2 * self.others(self.again(ids))).sum(1))
        return scores


@pytest.mark.parametrize("shared", [True, False])
def test_a_second_look_up_of_computed_ids_is_explained_in_their_own_table_and_else_told(shared: bool) -> None:
    model = Twice(lambda ids: ids.masked_fill(ids == 0, 1).flip(1), shared=shared).eval()
    found = xaicli.saliency(model, IDS, methods="gradient", device="cpu")
    at = model.head.weight[model(IDS).argmax(1)].detach()[:, None].expand(3, 4, 5)
    expected = torch.cat([at, 2 * at], -1) if shared else at
    np.testing.assert_allclose(found.attributions["gradient"], expected, atol=1e-5)
    assert [note for note in found.answer.warnings if "looks up what it computes" in note] == (
        []
        if shared
        else [
            "forward also looks up what it computes from ids, in 1 embedding: explained is the look-up of the ids "
            "themselves"
        ]
    )


LOST: dict[str, Callable[[Tensor], Tensor]] = {
    "sorted": lambda ids: ids.sort(1).values,
    "hashed pairs": lambda ids: (ids[:, :-1] * 31 + ids[:, 1:]) % 12,
    "sums": lambda ids: ids.cumsum(1) % 12,
    "as floats": lambda ids: ids.float().long(),
    "a list": lambda ids: torch.tensor(ids.tolist()),
    "numpy": lambda ids: torch.from_numpy(ids.numpy()[:, ::-1].copy()),
    "part of a list": lambda ids: torch.cat([torch.tensor(ids.tolist())[:, 3:], ids[:, :3]], 1),
}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", LOST)
def test_no_look_up_is_left_out_beside_one_that_is_explained(name: str, shared: bool) -> None:
    # Of the scores, two thirds and more come from the look-up whose ids were lost track of.
    with pytest.raises(xaicli.XaiError, match=r"computes from ids.* not known any more whose they are") as said:
        xaicli.saliency(Summed(LOST[name], shared=shared), IDS, methods="gradient", device="cpu")
    assert "forward(ids, computed)" in said.value.hint


class Quantised(nn.Module):
    """Tokens whose embeddings are replaced by the nearest of some codes, as models of discrete units do."""

    def __init__(self, *, straight: bool) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.words, self.codes, self.head = nn.Embedding(12, 5), nn.Embedding(4, 5), nn.Linear(5, 3)
        self.straight = straight

    def forward(self, ids: Tensor) -> Tensor:
        return self.of_rows(self.words(ids))

    def of_rows(self, rows: Tensor) -> Tensor:
        codes: Tensor = self.codes(torch.cdist(rows, self.codes.weight[None]).argmin(-1))
        return self.head(torch.tanh(rows + (codes - rows).detach() if self.straight else codes).mean(1))


def test_codes_that_are_chosen_by_what_tokens_mean_are_no_second_look_up_of_the_tokens() -> None:
    model = Quantised(straight=True).eval()
    rows = model.words(IDS).detach().requires_grad_()
    scores = model.of_rows(rows)
    gradient = torch.autograd.grad(scores.amax(1).sum(), rows)[0]
    found = xaicli.saliency(model, IDS, methods="gradient", device="cpu")
    assert found.predictions.tolist() == scores.argmax(1).tolist()
    np.testing.assert_allclose(found.attributions["gradient"], gradient, atol=1e-6)
    with pytest.raises(xaicli.XaiError, match="does not depend on its inputs through autograd") as said:
        xaicli.saliency(Quantised(straight=False), IDS, methods="gradient", device="cpu")
    assert "argmax" in said.value.hint


def test_a_bag_of_computed_ids_beside_an_embedding_is_not_left_out_either() -> None:
    class Bags(nn.Module):
        def __init__(self, lost: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            torch.manual_seed(10)
            self.words, self.pairs, self.head = nn.Embedding(12, 5), nn.EmbeddingBag(12, 5), nn.Linear(5, 3)
            self.lost = lost

        def forward(self, ids: Tensor) -> Tensor:
            scores: Tensor = self.head(self.words(ids).mean(1) + 3 * self.pairs(self.lost(ids)))
            return scores

    with pytest.raises(xaicli.XaiError, match="not known any more whose they are"):
        xaicli.saliency(Bags(LOST["hashed pairs"]), IDS, methods="gradient", device="cpu")
    model = Bags(lambda ids: ids.flip(1)).eval()
    found = xaicli.saliency(model, IDS, methods="gradient", device="cpu")
    at = model.head.weight[model(IDS).argmax(1)].detach()[:, None].expand(3, 4, 5)
    np.testing.assert_allclose(found.attributions["gradient"], torch.cat([at / 4, 3 * at / 4], -1), atol=1e-5)


@pytest.mark.parametrize(
    "told",
    [
        lambda ids: torch.arange(4).expand(len(ids), 4),
        lambda ids: ids.ne(0).long().cumsum(1) * ids.ne(0),
        lambda ids: torch.from_numpy(np.cumsum(ids.numpy() != 0, 1)),
        lambda ids: ids.eq(7).long().cumsum(1),
        lambda ids: torch.tensor([list(range(n)) + [0] * (4 - n) for n in ids.ne(0).sum(1).tolist()]),
    ],
    ids=["places", "counted", "counted by numpy", "segments", "lengths"],
)
def test_what_tells_places_and_kinds_of_tokens_is_no_look_up_of_the_ids(told: Callable[[Tensor], Tensor]) -> None:
    model = Summed(told, shared=False).eval()
    found = xaicli.saliency(model, IDS, methods="gradient", device="cpu")
    at = model.head.weight[model(IDS).argmax(1)].detach()[:, None].expand(3, 4, 5)
    np.testing.assert_allclose(found.attributions["gradient"], at, atol=1e-5)


class Summed(nn.Module):
    """Rows of ids, and of what is computed from them, each added up."""

    def __init__(self, again: Callable[[Tensor], Tensor], *, shared: bool) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.words = nn.Embedding(12, 5)
        self.others = self.words if shared else nn.Embedding(12, 5)
        self.head, self.again = nn.Linear(5, 3), again

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head(self.words(ids).sum(1) + 2 * self.others(self.again(ids)).sum(1))
        return scores


def _behind_the_last(ids: Tensor) -> Tensor:
    """The last token that counts put before the others, as the decoders of translators shift their ids."""
    moved = ids.clone()
    moved.masked_fill_(moved == -100, 0)
    last = moved.gather(1, (moved.ne(0).sum(1) - 1).unsqueeze(-1)).squeeze()
    moved[:, 1:] = moved[:, :-1].clone()
    moved[:, 0] = last
    return moved


def _copied(ids: Tensor) -> Tensor:
    made = torch.empty_like(ids)
    made.copy_(ids)
    return made


def _slice_copied(ids: Tensor) -> Tensor:
    made = torch.zeros_like(ids)
    made[:, 1:].copy_(ids[:, :-1])
    return made


def _slice_assigned(ids: Tensor) -> Tensor:
    made = ids.clone()
    made[:, 1:][...] = ids[:, :-1]
    return made


def _last_in_front(ids: Tensor) -> Tensor:
    last = ids[torch.arange(len(ids)), ids.ne(0).sum(1) - 1]
    return torch.cat([last[:, None], ids[:, :-1]], 1)


def _scattered(ids: Tensor) -> Tensor:
    return torch.zeros_like(ids).scatter_(1, torch.arange(4).flip(0).expand(len(ids), 4), ids)


def _data_written(ids: Tensor) -> Tensor:
    made = ids.clone()
    made.data[:, 0] = 3
    return made


LENGTHS = torch.tensor([[1, 5, 0, 0], [8, 2, 0, 0], [2, 2, 7, 0], [9, 3, 4, 6]])
"""The first two texts are of one length: what holds of them holds of no other."""
SHIFTED = [[2, 4, 4, 0], [2, 4, 4, 0], [2, 3, 5, 0], [2, 3, 4, 1]]
FOLLOWED: dict[str, tuple[Callable[[Tensor], Tensor], list[list[int]]]] = {
    # How often each place counts: the number of where it is looked up, 1 to 4.
    "the last in front": (_behind_the_last, SHIFTED),
    "the last in front by an index": (_last_in_front, SHIFTED),
    "copied": (_copied, [[1, 2, 3, 4]] * 4),
    "a slice copied": (_slice_copied, [[2, 3, 4, 0]] * 4),
    "a slice assigned": (_slice_assigned, [[3, 3, 4, 0]] * 4),
    "scattered": (_scattered, [[4, 3, 2, 1]] * 4),
    "data written": (_data_written, [[0, 2, 3, 4]] * 4),
}


class Twofold(Weighed):
    """Ids as they are, and again as they are arranged, where each place counts as much as its number."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids).sum(1)) + super().forward(ids)


@pytest.mark.parametrize("name", FOLLOWED)
def test_ids_put_elsewhere_in_memory_are_followed_each_sample_by_itself(name: str) -> None:
    arranged, counts = FOLLOWED[name]
    model = Twofold(arranged).eval()
    found = xaicli.saliency(model, LENGTHS, methods=("gradient", "integrated"), device="cpu")
    at = model.head.weight[model(LENGTHS).argmax(1)].detach()[:, None].expand(4, 4, 5)
    # The look-up that forward makes first comes first.
    np.testing.assert_allclose(found.attributions["gradient"][..., :5], at, atol=1e-5)
    np.testing.assert_allclose(found.attributions["gradient"][..., 5:], torch.tensor(counts)[..., None] * at, atol=1e-5)
    assert np.nanmax(found.delta["integrated"]) < 1e-4
    alone = xaicli.saliency(model, LENGTHS[2:3], methods="gradient", device="cpu").attributions["gradient"]
    np.testing.assert_allclose(found.attributions["gradient"][2], alone[0], atol=1e-6)


class Beside(nn.Module):
    """Looks ids up, and reads them in another way besides."""

    def __init__(self, read: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.words, self.table, self.head = nn.Embedding(12, 5), nn.Parameter(torch.randn(12, 5)), nn.Linear(5, 3)
        self.read = read

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head((self.words(ids) + self.read(ids, self.table)).sum(1))
        return scores


READ: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "one-hot codes": lambda ids, table: nn.functional.one_hot(ids, 12).float() @ table,
    "compared": lambda ids, table: (ids[..., None] == torch.arange(12)).float() @ table,
    "scattered": lambda ids, table: torch.zeros(*ids.shape, 12).scatter_(-1, ids[..., None], 1.0) @ table,
    "einsum": lambda ids, table: torch.einsum("ntv,vd->ntd", nn.functional.one_hot(ids, 12).to(table.dtype), table),
    "a linear layer": lambda ids, table: nn.functional.linear(nn.functional.one_hot(ids, 12).float(), table.T),
    "numbers": lambda ids, table: ids[..., None].float() * table[0],
}


@pytest.mark.parametrize("name", READ)
def test_ids_that_are_read_beside_their_look_up_are_refused_by_name(name: str) -> None:
    with pytest.raises(xaicli.XaiError, match="forward reads ids in another way beside the embeddings") as said:
        xaicli.saliency(Beside(READ[name]), IDS, methods="gradient", device="cpu")
    assert "nn.Embedding" in said.value.hint


@pytest.mark.parametrize(
    "told",
    [
        lambda ids, table: (ids != 0)[..., None].float() * table[0],
        lambda ids, table: (ids != 0).sum(1)[:, None, None] * table[0],
        lambda ids, table: nn.functional.one_hot((ids != 0).long().cumsum(1), 12).float() @ table,
    ],
    ids=["a mask", "a length", "places"],
)
def test_what_is_told_from_where_a_text_ends_is_no_second_way_to_read_it(told: Any) -> None:
    ids = IDS.clone()
    ids[:, 3] = 0
    model = Beside(told).eval()
    found = xaicli.saliency(model, ids, methods="gradient", device="cpu")
    at = model.head.weight[model(ids).argmax(1)].detach()[:, None].expand(len(ids), 4, 5)
    np.testing.assert_allclose(found.attributions["gradient"], at, atol=1e-5)


class Factors(nn.Module):
    """A user and an item, one id each a sample; further numbers and the user's history where they are given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.users, self.items, self.head = nn.Embedding(5, 8), nn.Embedding(6, 8), nn.Linear(8, 3)

    def forward(self, user: Tensor, item: Tensor, x: Any = None, history: Any = None) -> Tensor:
        seen = None if history is None else self.items(history)
        return self.of_rows(self.users(user), self.items(item), x, seen)

    def of_rows(self, user: Tensor, item: Tensor, x: Any = None, history: Any = None) -> Tensor:
        rest = (0 if x is None else x) + (0 if history is None else history.mean(1))
        return self.head(torch.tanh(user * item + rest))


@pytest.mark.parametrize("more", [(), ("x",), ("history",), ("x", "history")])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_one_id_a_sample_is_explained_at_its_row(dtype: torch.dtype, more: tuple[str, ...]) -> None:
    model = Factors()
    inputs = {"user": torch.tensor([0, 1, 2, 3, 4], dtype=dtype), "item": torch.tensor([4, 2, 2, 1, 0], dtype=dtype)}
    others = {"x": torch.randn(5, 8), "history": torch.arange(15).reshape(5, 3) % 6}
    inputs |= {name: others[name] for name in more}
    tables = {"user": model.users, "item": model.items, "history": model.items}
    rows = {n: (tables[n](v) if n in tables else v).detach().requires_grad_() for n, v in inputs.items()}
    outputs = model.of_rows(**rows)
    outputs.amax(1).sum().backward()

    given: list[Any] = [inputs, {name: x.numpy() for name, x in inputs.items()}]
    for each in given if "history" not in more or "x" in more else given[:1]:
        found = xaicli.saliency(model, each, methods="gradient", device="cpu")
        assert found.predictions.tolist() == outputs.argmax(1).tolist()
        maps = found.attributions["gradient"]
        for name, row in rows.items():
            assert row.grad is not None
            assert np.allclose(np.asarray(maps[name]).reshape(row.shape), row.grad, atol=1e-6)


def test_an_id_a_sample_that_is_read_as_a_number_too_is_refused() -> None:
    class Besides(Factors):
        def forward(self, user: Tensor, item: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(user, item) + functional.one_hot(user, 5).float() @ self.users.weight[:, :3]

    inputs = {"user": torch.arange(5), "item": torch.tensor([4, 2, 2, 1, 0])}
    with pytest.raises(xaicli.XaiError, match="reads user in another way"):
        xaicli.saliency(Besides(), inputs, methods="gradient", device="cpu")

from itertools import islice

import lightning as L
import pytest
import torch
from torch import nn

from smallbatch.data.digits import Digits
from smallbatch.data.images import to_float
from smallbatch.data.shapes import Shapes
from smallbatch.data.store import Store, Streamed, digest
from smallbatch.data.stream import Stream

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, logging and progress


class Witness(L.LightningModule):
    """Remembers the rows that it is shown."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.zeros(())), []

    def training_step(self, batch):
        self.seen.append(batch.x0)
        return self.weight * batch.x0.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(steps, micros=1, checkpoint=None):
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=micros,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    witness = Witness()
    trainer.fit(witness, Digits(batch=12, seed=3, flip=True), ckpt_path=checkpoint)
    return torch.cat(witness.seen), trainer


def test_training_sees_the_rows_of_the_stream():
    data = Digits(batch=12, seed=3)
    indices, flips = Stream(3, len(data.train_store), flip=True)[range(60)]
    expected = data.train_store.take(indices).mirrored(flips).batch.x0
    assert torch.equal(train(steps=5)[0], expected)


def test_accumulation_sees_the_same_rows():
    assert torch.equal(train(steps=5, micros=3)[0], train(steps=5)[0])


@pytest.mark.parametrize("micros", [1, 3])
def test_a_resumed_run_sees_the_rows_that_were_left(tmp_path, micros):
    whole, _ = train(steps=200, micros=micros)
    first, trainer = train(steps=130, micros=micros)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest, _ = train(steps=200, micros=micros, checkpoint=tmp_path / "half.ckpt")
    assert torch.equal(torch.cat([first, rest]), whole)


@pytest.mark.parametrize("data_set", [Digits, Shapes])
def test_every_data_set_gives_one_image_in_so_many_rows(data_set):
    data = data_set(batch=12, seed=3, per_image=3)
    batch = Streamed(data.train_store, data.order)[range(24)].batch
    images = batch.x0.unflatten(0, (8, 3))
    assert torch.equal(images, images[:, :1].expand_as(images)) and not torch.equal(images[0], images[1])
    assert torch.equal(batch.condition.label.view(8, 3), batch.condition.label[::3, None].expand(8, 3))


def test_loading_leaves_the_global_generator_alone():
    data = Digits(batch=12, seed=3)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.trainer = trainer
    before = torch.get_rng_state()
    assert len(list(islice(data.train_dataloader(), 3))) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_flips_mirror_left_and_right_where_the_coin_says_so():
    store = Store(torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2), torch.tensor([5, 6]))
    mirrored = store.mirrored(torch.tensor([True, False]))
    assert mirrored.pixels.flatten().tolist() == [1, 0, 3, 2, 4, 5, 6, 7]
    assert mirrored.labels.tolist() == [5, 6]


def test_labels_travel_with_their_images():
    store = Store(torch.arange(50, dtype=torch.uint8).reshape(50, 1, 1, 1), torch.arange(50))
    batch = Streamed(store, Stream(0, 50, flip=True))[range(120)].batch
    assert torch.equal(batch.x0, to_float(batch.condition.label.to(torch.uint8).reshape(-1, 1, 1, 1)))


def test_held_out_images_are_given_by_index():
    data = Digits(batch=12, seed=3)
    batch = data.held_out(torch.tensor([5, 0, 5]), "cpu")
    assert torch.equal(batch.x0, to_float(data.held_out_store.pixels[[5, 0, 5]]))
    assert batch.condition.label.tolist() == data.held_out_store.labels[[5, 0, 5]].tolist()


def test_the_digest_follows_images_labels_and_shape():
    pixels, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 1])
    known = [Store(pixels, labels), Store(pixels + 1, labels), Store(pixels.reshape(4, 1, 1, 4), labels)]
    stores = [*known, Store(pixels, 1 - labels), Store(pixels, None)]
    assert len({digest(store) for store in stores}) == 5

"""A kernel that is frozen while a matrix of low rank is trained beside it."""

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent.layers.head import Head, Initializer, spread_alike
from keras_xent.ops import checks


class LowRankLayer(Head):
    """A head with what `LinearHead` knows of LoRA.

    A subclass has the weights `_kernel` and `bias`, which may be None, in this
    order.
    """

    lora_enabled = False
    lora_rank = None
    lora_alpha = None

    @property
    def trainable(self) -> bool:
        """Whether the weights are trained; of a low rank, never the kernel."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        if self.lora_enabled:
            self._kernel.trainable = False

    def enable_lora(
        self,
        rank: int,
        *,
        lora_alpha: float | None = None,
        a_initializer: Initializer = "he_uniform",
        b_initializer: Initializer = "zeros",
    ) -> None:
        """Freezes the kernel and trains a matrix of low rank beside it.

        ```
        kernel + lora_alpha / rank · a · b,    a of shape (d, rank), b (rank, v)
        ```

        as in `keras.layers.Dense`. Saved is the sum, which a head without a low
        rank reads as well; loaded into a head with one, it is the kernel, and
        b begins again at 0. In a step the sum exists, and its gradient: they
        take the memory of two kernels. Compile the model once more: its
        optimizer does not know the new weights.

        Args:
            rank: The rank, a whole number from 1.
            lora_alpha: The factor in the formula. `None` is `rank`.
            a_initializer: How a begins.
            b_initializer: How b begins.

        Raises:
            ValueError: if the head is tied, is not built, or has a low rank.
        """
        if self.lora_enabled:
            raise ValueError(
                f"The head {self.name!r} has a low rank already, "
                f"{self.lora_rank}. Call `enable_lora` once."
            )
        if not self.built and self.tied_to is None:
            raise ValueError(
                f"The head {self.name!r} has no kernel yet: call `enable_lora` "
                "once the model is built, or make "
                f"LinearHead({self.units}, lora_rank={rank})."
            )
        self._set_lora(rank, lora_alpha)
        size, units = self._kernel.shape[:: -1 if self.sampled else 1]
        with _keras.unlocked(self):
            # In float32 as in Keras: small steps would be lost in 16 bits.
            self.lora_kernel_a = self.add_weight(
                name="lora_kernel_a",
                shape=(size, rank),
                initializer=a_initializer,
                dtype="float32",
            )
            self.lora_kernel_b = self.add_weight(
                name="lora_kernel_b",
                shape=(rank, units),
                initializer=b_initializer,
                dtype="float32",
            )
        self._kernel.trainable = False
        self.lora_enabled = True

    def _set_lora(self, rank, alpha):
        if self.tied_to is not None:
            raise ValueError(
                "A tied head has no kernel of its own to enable LoRA on. Call "
                "`enable_lora` on its embedding: the head follows it."
            )
        checks.whole("lora_rank", rank, 1)
        if alpha is not None:
            checks.number("lora_alpha", alpha, -np.inf)
        self.lora_rank = int(rank)
        self.lora_alpha = rank if alpha is None else alpha

    def _merged_kernel(self):
        """The kernel, or the class vectors, with the low rank added."""
        kernel = ops.convert_to_tensor(self._kernel)
        if not self.lora_enabled:
            return kernel
        # As the kernel is: else their gradients gather that of the kernel.
        features, classes = (1, 0) if self.sampled else (0, 1)
        a, b = map(
            ops.convert_to_tensor, (self.lora_kernel_a, self.lora_kernel_b)
        )
        a = spread_alike(a, 0, self._kernel, features)
        b = spread_alike(b, 1, self._kernel, classes)
        with _keras.full_precision():
            low = ops.matmul(a, b)
        low = self.lora_alpha / self.lora_rank * low
        return kernel + (ops.transpose(low) if self.sampled else low)

    def save_own_variables(self, store: dict) -> None:
        if not self.lora_enabled:
            return super().save_own_variables(store)
        store["0"] = ops.cast(self._merged_kernel(), self._kernel.dtype)
        if self.bias is not None:
            store["1"] = self.bias

    def load_own_variables(self, store: dict) -> None:
        if not self.lora_enabled:
            return super().load_own_variables(store)
        self._kernel.assign(store["0"])
        if self.bias is not None:
            self.bias.assign(store["1"])
        # Not a as well, as in Keras: neither would ever move again.
        b = self.lora_kernel_b
        b.assign(ops.zeros(b.shape, dtype=b.dtype))

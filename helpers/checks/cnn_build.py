"""Exercises of lesson 02."""

from collections.abc import Callable

import numpy as np

from helpers.checks.replies import STILL_THERE, count, exercise, not_whole


@exercise("each filter has one weight for every pixel of its kernel in every input channel, plus one bias")
def parameters(answer: int, filters: int, kernel_size: int, channels: int) -> str | None:
    """Check the number of parameters of a convolution with square kernels."""
    if wrong := not_whole(answer):
        return wrong
    square = kernel_size**2
    weights = filters * square * channels
    mistakes = {
        weights: "those are only the weights; add the biases, one per filter",
        weights + 1: "every filter has its own bias",
        square * channels + 1: f"that is for one filter; there are {filters}",
        filters * (kernel_size * channels + 1): "that counts one row of each kernel; a kernel is a square",
        filters * (9 * channels + 1): f"that is for 3 x 3 kernels; these are {kernel_size} x {kernel_size}",
        32 * (square * channels + 1): f"that is for 32 filters; there are {filters}",
        32 * (9 * channels + 1): "that is for 32 filters of 3 x 3; "
        f"there are {filters} of {kernel_size} x {kernel_size}",
        32 * (9 * 32 + 1): "that is for 32 filters of 3 x 3 on 32 channels, as in a second convolution",
    }
    inputs, rest = divmod(int(answer) - filters, filters * square)
    if not rest and inputs > channels:
        mistakes[int(answer)] = (
            f"that is for {inputs} input channels, as in a second convolution; the image has {channels}"
        )
    elif not rest and 0 < inputs < channels:
        mistakes[int(answer)] = "every filter looks at all channels of its input"
    return count(answer, weights + filters, mistakes)


@exercise("every weight of a kernel is used once at every output position; a bias multiplies nothing")
def multiply_adds(answer: int, image_size: int, filters: int, kernel_size: int, channels: int) -> str | None:
    """Check the number of multiply-adds of a convolution without padding on a square image."""
    side, weights = max(0, image_size - kernel_size + 1), filters * kernel_size**2 * channels
    fits = f"a kernel of {kernel_size} pixels fits in {side} positions along a side of {image_size} pixels"
    return count(
        answer,
        side**2 * weights,
        {
            (side - 1) ** 2 * weights: fits,
            image_size**2 * weights: f"{fits}; it must not hang over the edge, so the output is smaller than the image",
            side * weights: f"{fits}, and in just as many along the other side",
            side**2 * filters * kernel_size**2: "every filter looks at all channels of its input",
            side**2 * kernel_size**2 * channels: f"that is for one filter; there are {filters}",
            side**2 * (weights + filters): "adding a bias is not a multiplication",
            (image_size - 2) ** 2 * weights: f"{fits}; your number is for a kernel of 3 pixels",
            2 * side**2 * weights: "a multiplication and the addition that follows it count as one multiply-add",
            weights: "that is the number of weights; each is used at many positions",
            weights + filters: "that is the number of parameters; each weight is used at many positions",
        },
    )


@exercise("along 4 pixels, a kernel of 3 pixels fits in two positions; count how many your function visits")
def convolved(answer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> str | None:
    """Check a function of (image, kernel) that computes the feature map of one convolution without padding."""
    rng = np.random.default_rng(0)
    image, kernel = rng.integers(0, 9, (5, 7)), rng.integers(-3, 4, (3, 3))
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel.shape)
    right, rotated = (np.einsum("rcij,ij->rc", windows, k) for k in (kernel, kernel[::-1, ::-1]))
    try:
        value = answer(image, kernel)
    except ValueError as error:
        if "broadcast" in str(error):
            return "your function visits positions beyond the edge, where the window is smaller than the kernel"
        raise
    if value is None:
        return "your function returns nothing"
    given = np.asarray(value, float)
    if given.shape == (2, 4):
        return STILL_THERE
    if given.shape != right.shape:
        shape = " x ".join(map(str, given.shape)) or "one number"
        return f"for an image of 5 x 7 and a kernel of 3 x 3, your map is {shape}, not 3 x 5"
    if np.allclose(given, rotated):
        return "your function rotates the kernel by 180 degrees; a network applies it without rotating it"
    return None if np.allclose(given, right) else "the size of your map is right, but its numbers are not"

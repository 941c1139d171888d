"""Whether probabilities mean what they say: bins, calibration errors, scores and a temperature."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize, special

# Natural logarithms of the coldest and the hottest temperature that a fit may choose.
_LOG_TEMPERATURES = (-5.0, 5.0)
# Decides, in favour of 1, where the likelihood is flat to rounding: every answer is right.
_TOWARDS_ONE = 1e-6
_MOST_BINS = 20


@dataclasses.dataclass(frozen=True)
class Bins:
    """Images in bins of about as many, by the probability of their answer.

    Attributes:
      of_image: the bin of each image.
      confidence: mean probability of the answers, by bin.
      accuracy: share of right answers.
      images: number of images.
      covariance: of `accuracy - confidence`, patients drawn anew.
    """

    of_image: Int[np.ndarray, "n"]
    confidence: Float[np.ndarray, "b"]
    accuracy: Float[np.ndarray, "b"]
    images: Int[np.ndarray, "b"]
    covariance: Float[np.ndarray, "b b"]

    @property
    def gap(self) -> Float[np.ndarray, "b"]:
        return self.accuracy - self.confidence

    @property
    def share(self) -> Float[np.ndarray, "b"]:
        return self.images / self.images.sum()

    def expected_error(self) -> float:
        """The expected calibration error (Naeini et al. 2015): the mean of |accuracy - confidence|.

        Of a finite sample it is biased upwards; `expected_by_chance` is what to hold it against.
        """
        return float(self.share @ np.abs(self.gap))

    def expected_by_chance(self) -> float:
        """What `expected_error` is on average of a model of which every probability is true."""
        return float(self.share @ np.sqrt(2 / np.pi * self.covariance.diagonal()))

    def squared_error(self) -> float:
        """The squared calibration error without its bias; it may lie below zero.

        The mean over images of (accuracy - confidence)^2 of their bins minus what chance adds to
        it (Broecker 2012; Kumar, Liang and Ma 2019, with the variance of patients in place of that
        of images). Its root is no less than the expected calibration error of the same bins.
        """
        by_chance = self.share @ self.covariance.diagonal()
        return float(self.share @ self.gap**2 - by_chance)

    def squared_error_interval(self, freedom: int, level: float) -> tuple[float, float]:
        """The interval of the squared calibration error, by inverting a test of each value.

        The variance of the estimate is that of a quadratic form of a normal vector, and grows with
        the error itself: 4 m' W S W m + 2 tr(W S W S) for gaps m of shares W and covariance S.

        Args:
          freedom: of Student's t; patients - 1.
          level: coverage, in (0, 1).
        """
        weighted = self.share[:, None] * self.covariance  # W S
        constant = 2 * np.trace(weighted @ weighted)
        shift = np.sqrt(np.maximum(self.gap**2 - self.covariance.diagonal(), 0))
        shift *= np.sign(self.gap)
        size = self.share @ shift**2
        if size:
            slope = 4 * (self.share * shift @ self.covariance @ (self.share * shift)) / size
        else:  # gaps that chance explains point nowhere: as along any of them
            slope = 2 * constant / max(np.trace(weighted), 1e-300)
        square, t = self.squared_error(), special.stdtrit(freedom, 0.5 + level / 2)
        centre = square + t**2 * slope / 2
        reach = t * np.sqrt(max(t**2 * slope**2 / 4 + slope * square + constant, 0.0))
        # None at all is possible as long as chance explains the estimate.
        low = 0.0 if square <= t * np.sqrt(constant) else max(centre - reach, 0.0)
        return float(low), float(max(centre + reach, low))


def number_of_bins(images: int) -> int:
    """The cube root of the number of images, which keeps bias and resolution in balance."""
    return int(np.clip(round(images ** (1 / 3)), 1, _MOST_BINS))


def bins(
    confidence: Float[np.ndarray, "n"],
    hits: Bool[np.ndarray, "n"],
    owners: np.ndarray,
    count: int | None = None,
) -> Bins:
    """Bins of equal mass; images of one confidence share a bin.

    Args:
      confidence: probability of the answer.
      hits: whether it is right.
      owners: [n] the patients.
      count: bins, of which ties may leave fewer; None for `number_of_bins`.
    """
    count = number_of_bins(len(confidence)) if count is None else count
    edges = np.quantile(confidence, np.arange(1, count) / count, method="higher")
    _, of_image = np.unique(np.searchsorted(edges, confidence, side="right"), return_inverse=True)
    images = np.bincount(of_image)
    accuracy = np.bincount(of_image, hits) / images
    mean = np.bincount(of_image, confidence) / images
    _, patient = np.unique(owners, return_inverse=True)
    patients = patient.max() + 1
    influence = np.zeros((patients, len(images)))
    residual = hits - confidence - (accuracy - mean)[of_image]
    np.add.at(influence, (patient, of_image), residual / images[of_image])
    covariance = influence.T @ influence * (patients / max(patients - 1, 1))
    # A bin without an error shows no variance; a model that tells the truth has this one.
    told = np.bincount(of_image, confidence * (1 - confidence)) / images**2
    np.fill_diagonal(covariance, np.maximum(covariance.diagonal(), told))
    return Bins(of_image, mean, accuracy, images, covariance)


def log_probabilities(
    logits: Float[np.ndarray, "n c"], temperature: float | Float[np.ndarray, "n"] = 1.0
) -> Float[np.ndarray, "n c"]:
    """Logarithms of the probabilities at a temperature, one of all images or one of each."""
    divided = logits.astype(np.float64) / np.reshape(temperature, (-1, 1))
    return special.log_softmax(divided, axis=1)


def fit_temperature(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n"]) -> float:
    """The temperature of the least negative log likelihood (Guo et al. 2017).

    The likelihood is concave in its inverse, so that there is one optimum. Where no answer is wrong
    it is no finite one: the temperature is then some cold one; where the answers tell nothing it is
    the hottest.

    Raises:
      ValueError: no image.
    """
    if not len(labels):
        raise ValueError("a temperature needs at least one image to be fitted on, found none")
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        of_label = log_probabilities(logits, np.exp(log_temperature))[rows, labels]
        return -of_label.mean() + _TOWARDS_ONE * log_temperature**2

    found = optimize.minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded")
    return float(np.exp(found.x))


def is_hottest(temperature: float) -> bool:
    """Whether a fit found no temperature too hot."""
    return bool(np.log(temperature) > _LOG_TEMPERATURES[1] - 0.01)


def brier(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """Brier's score of each image (1950): squared errors summed over the classes, 0 to 2."""
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1)

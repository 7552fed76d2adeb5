"""Lists the twenty differences between libraries of docs/conventions.md, a sentence each."""

DOCS = "docs/conventions.md"

DIFFERENCES = {
    "S1": ("momentum", "0.9 is a horizon of 10 steps or of 1, by whose weight it is"),
    "S2": ("running variance", "of n values a channel, unbiased is n / (n - 1) times biased"),
    "S3": ("eps", "with 1e-3 a channel of deviation 0.03 comes out at 0.69, with 1e-5 at 0.99"),
    "S4": ("eps of RMSNorm", "input of size 1e-4 comes out at 0.28 (torch), 0.10 or 0.03"),
    "S5": ("affine shape", "over an image, C or H W C parameters: another model"),
    "S6": ("what layer norm is over", "a pixel's channels or a whole image: two normalisers"),
    "S7": ("channel axis", "the wrong layout gives the wrong statistics without an error"),
    "S8": ("default groups", "32 groups need channels divisible by 32"),
    "S9": ("one value", "an error, or an output of zero without a word"),
    "S10": ("parameters by default", "weights that are missing, or left over, on conversion"),
    "S11": ("freezing", "frozen features drift where the running statistics still move"),
    "S12": ("evaluation by the batch", "an example's output depends on the others evaluated"),
    "S13": ("dtype", "the same word rounds the output, the input, or the statistics"),
    "S14": ("zero-centred scale", "weight decay pulls the scale to one, not to zero"),
    "S15": ("weight standardisation", "kernels differ by 5.7% at a fan-in of 9"),
    "S16": ("weight norm's first scale", "wrapping a layer changes what it computes, or does not"),
    "S17": ("eps of EvoNorm", "one name, 1e-3 or 1e-5"),
    "S18": ("recomputation", "the running statistics move twice in one step"),
    "S19": ("averaging variances", "the spread of the means is lost"),
    "S20": ("limits of renormalisation", "without them it is not the paper's method"),
}
"""Number -> what differs, and to what effect."""


def of_field(field: str, normaliser: str) -> str:
    """Return the number of the difference that a field is about.

    >>> of_field("eps", "rms_norm"), of_field("momentum", "batch_norm")
    ('S4', 'S1')
    """
    if normaliser.startswith(("weight_", "scaled_weight_")):
        return "S16" if normaliser == "weight_norm" else "S15"
    if field == "eps":
        return {"rms_norm": "S4", "evo_norm_b0": "S17", "evo_norm_s0": "S17"}.get(normaliser, "S3")
    numbers = {"momentum": "S1", "average": "S1", "unbiased_running_variance": "S2", "groups": "S8"}
    return numbers.get(field, "S10")

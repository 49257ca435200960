"""The value types and Protocols that hooks receive and return.

Arrays are NumPy's. "Parameters" are a model's named tensors in the model's own order: float weights and integer
buffers alike. This package imports no framework, and NumPy only for type checkers, since services import it too.
"""

from locex.api.aggregation import Aggregation, Contribution, ContributionDecoder, OpaqueAggregation, PlainMean
from locex.api.data import (
    Augment,
    Dataset,
    DataSource,
    FittedTransform,
    LocalData,
    Needs,
    RandomTransform,
    SavedTransform,
    SharingTransform,
    SiteContext,
    TracedSource,
    Transform,
)
from locex.api.federation import Federation, FederationContext, Participant
from locex.api.inference import Inferencer, InferencerContext, LoadContext, TensorInfo, _no_architecture
from locex.api.privacy import Ledger, PrivacyContext, PrivacyMechanism, PrivacyReview, Stage, Update
from locex.api.training import (
    BuildContext,
    Differentiable,
    Evaluation,
    FitResult,
    GradientSource,
    ModelArtefact,
    ModelSignature,
    PrivateSession,
    Stopped,
    TensorSpec,
    TrainingSession,
)
from locex.api.values import Array, Incoming, Parameters, Scalar

__all__ = [
    "Aggregation",
    "Array",
    "Augment",
    "BuildContext",
    "Contribution",
    "ContributionDecoder",
    "DataSource",
    "Dataset",
    "Differentiable",
    "Evaluation",
    "Federation",
    "FederationContext",
    "FitResult",
    "FittedTransform",
    "GradientSource",
    "Incoming",
    "Inferencer",
    "InferencerContext",
    "Ledger",
    "LoadContext",
    "LocalData",
    "ModelArtefact",
    "ModelSignature",
    "Needs",
    "OpaqueAggregation",
    "Parameters",
    "Participant",
    "PlainMean",
    "PrivacyContext",
    "PrivacyMechanism",
    "PrivacyReview",
    "PrivateSession",
    "RandomTransform",
    "SavedTransform",
    "Scalar",
    "SharingTransform",
    "SiteContext",
    "Stage",
    "Stopped",
    "TensorInfo",
    "TensorSpec",
    "TracedSource",
    "TrainingSession",
    "Transform",
    "Update",
    "_no_architecture",
]

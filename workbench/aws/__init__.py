"""EC2: what this instance is and can do, what else would fit, and S3. Importing this loads no boto3 and no torch."""

from workbench.aws.advice import Advice, AdviceRow, Rejection, advise
from workbench.aws.catalogue import GPUModel, InstanceCatalogue, InstanceKind, InstanceType, Interconnect
from workbench.aws.clients import make_client
from workbench.aws.detection import (
    get_aws_gpu_info,
    get_aws_instance_metadata,
    get_aws_instance_type,
    get_optimal_aws_backend,
    is_aws_gpu_instance,
)
from workbench.aws.iam import PolicyNeeds, instance_policy, instance_trust_policy
from workbench.aws.instance import Instance, InstanceIdentity, default_instance
from workbench.aws.live_types import CatalogueCheck, check_catalogue
from workbench.aws.prices import LivePrices, Price, TablePrices
from workbench.aws.report import InstanceReport, report_instance
from workbench.aws.roofline import Assumptions, DecodeEstimate, Layout
from workbench.aws.s3_download import DownloadOptions, S3Download, download_s3
from workbench.aws.s3_upload import S3Upload, upload_s3
from workbench.aws.s3_url import S3Url
from workbench.aws.serving_plan import ServingPlan
from workbench.aws.settings import InstanceSettings, Setting, recommend_settings
from workbench.aws.spot import SpotNotice, SpotWatcher, is_spot_instance
from workbench.aws.table import Table
from workbench.aws.user_data import UserDataPlan, render_user_data

__all__ = [
    "Advice",
    "AdviceRow",
    "Assumptions",
    "CatalogueCheck",
    "DecodeEstimate",
    "DownloadOptions",
    "GPUModel",
    "Instance",
    "InstanceCatalogue",
    "InstanceIdentity",
    "InstanceKind",
    "InstanceReport",
    "InstanceSettings",
    "InstanceType",
    "Interconnect",
    "Layout",
    "LivePrices",
    "PolicyNeeds",
    "Price",
    "Rejection",
    "S3Download",
    "S3Upload",
    "S3Url",
    "ServingPlan",
    "Setting",
    "SpotNotice",
    "SpotWatcher",
    "Table",
    "TablePrices",
    "UserDataPlan",
    "advise",
    "check_catalogue",
    "default_instance",
    "download_s3",
    "get_aws_gpu_info",
    "get_aws_instance_metadata",
    "get_aws_instance_type",
    "get_optimal_aws_backend",
    "instance_policy",
    "instance_trust_policy",
    "is_aws_gpu_instance",
    "is_spot_instance",
    "make_client",
    "recommend_settings",
    "render_user_data",
    "report_instance",
    "upload_s3",
]

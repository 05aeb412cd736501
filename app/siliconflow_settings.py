"""The settings of the cloud backend; a part of `settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from app.setting_values import HOST_PATTERN


class SiliconFlowSettings(BaseSettings):
    """What is asked of SiliconFlow, with which key, and where its results may lie."""

    siliconflow_api_key: SecretStr = SecretStr("")
    siliconflow_api_url: str = "https://api.siliconflow.com/v1/images/generations"
    siliconflow_model: str = "Qwen/Qwen-Image-Edit"
    siliconflow_timeout: float = Field(default=120, gt=0, le=3600, description="seconds")
    siliconflow_concurrency: int = Field(default=2, ge=1, le=16, description="photos at SiliconFlow at once")
    siliconflow_result_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(
            "*.siliconflow.cn",
            "*.siliconflow.com",
            "sc-maas.oss-cn-shanghai.aliyuncs.com",
            "sc-maas.oss-cn-beijing.aliyuncs.com",
            "sf-maas-prod.oss-cn-shanghai.aliyuncs.com",
            "sf-maas-sgp-ap-southeast-1.oss-ap-southeast-1.aliyuncs.com",
        ),
        description="hosts that results may be fetched from; *.name means every host below name",
    )

    @field_validator("siliconflow_api_key")
    @classmethod
    def _one_word(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()
        if not key.isascii() or any(not "!" <= character <= "~" for character in key):
            raise ValueError("SILICONFLOW_API_KEY must be one word of plain letters, digits and signs")
        return SecretStr(key)

    @field_validator("siliconflow_result_hosts")
    @classmethod
    def _are_host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.lower() for host in value)
        if not all(HOST_PATTERN.fullmatch(host) for host in hosts):
            raise ValueError("SILICONFLOW_RESULT_HOSTS must be host names such as s3.example.com or *.example.com")
        return hosts

# The export job: builds the TensorRT engine on the GPU that will run it. The release is the one of
# Triton's container, which makes the TensorRT version the same.
#   docker build --file deploy/export.Dockerfile --tag dim-export:0.1.0 .
ARG NVIDIA_RELEASE=25.11
FROM nvcr.io/nvidia/tensorrt:${NVIDIA_RELEASE}-py3
WORKDIR /dim
COPY pyproject.toml README.md LICENSE ./
COPY matting matting
COPY train train
COPY export export
COPY model_repository model_repository
# Editable: the configurations of the model repository are taken from the checkout.
# Into the container's own Python, which Ubuntu 24.04 would have pip refuse.
RUN PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --editable '.[export]'
COPY deploy/export.sh /dim/
# A new volume takes its owner from here.
RUN install --directory --owner 1000 --group 1000 /srv/dim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 1000:1000
ENTRYPOINT ["sh", "/dim/export.sh"]
CMD ["/dim/model_repository/dim/1/weights.safetensors", "/srv/dim/models"]

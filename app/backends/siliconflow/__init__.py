"""The SiliconFlow backend: restores a photo with an image-editing model over the provider's HTTP API.

`backend` joins the parts; this file imports none of them, so that a service without a key does not load an HTTP client.
"""

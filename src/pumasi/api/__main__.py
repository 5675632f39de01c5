"""`python -m pumasi.api > openapi/openapi.json`: the OpenAPI document, as it is committed."""

import sys

from pumasi.api.app import openapi_json

sys.stdout.buffer.write(openapi_json())

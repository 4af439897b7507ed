/* The reference of the API: Swagger UI over our OpenAPI document. */
"use strict";

SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", deepLinking: true, tryItOutEnabled: true });

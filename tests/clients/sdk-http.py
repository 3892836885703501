"""Events as the Python SDK of CloudEvents sends them by HTTP. Prints the id of each."""

import os

import requests
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent

URL = f"{os.environ['HERALD_URL']}/v1/workspaces/acme/events/custom.order_placed"

for name, write in [("binary", http.to_binary_event), ("structured", http.to_structured_event)]:
    id = f"py 100% é {name}"
    event = CloudEvent(
        attributes={
            "specversion": "1.0",
            "id": id,
            "source": "/sdk",
            "type": "com.example.order",
            "datacontenttype": "application/json",
        },
        data={"title": "From an SDK"},
    )
    message = write(event)
    headers = {**message.headers, "Authorization": f"Bearer {os.environ['HERALD_TOKEN']}"}
    response = requests.post(URL, headers=headers, data=message.body, timeout=20)
    assert response.status_code == 201, response.text
    print(id)

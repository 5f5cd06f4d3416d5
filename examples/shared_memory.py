"""A memory shared by two services: billing writes its own part of it, support reads that and writes another.

Each service holds a key that is limited by rules; what the rules do not allow, the server refuses. Make the
keys once (docs/operations.md says more). `tenure dev --ready-file ready.json` writes what is needed: set
TENURE_ADMIN_DATABASE_URL to its `database_url`, and take its `tenant_id` for ID.

    tenure key create --tenant ID --namespace billing:rw --namespace support:r
    tenure key create --tenant ID --namespace support:rw --namespace billing:r

Set BILLING_API_KEY and SUPPORT_API_KEY to the two keys and run it with `python -m examples.shared_memory`.
"""

import os
from uuid import uuid4

from langgraph.store.base import BaseStore
from tenure_client import OutsideRules, TenureStore


def main(billing: BaseStore, support: BaseStore) -> None:
    customer = str(uuid4())

    billing.put(("billing", customer), "invoice-1", {"amount": 250, "paid": False})
    invoice = support.get(("billing", customer), "invoice-1")
    print("Support reads:  ", invoice and invoice.value["amount"])

    support.put(("support", customer), "call-1", {"text": "Asked why invoice 1 is so high."})
    for call in billing.search(("support", customer)):
        print("Billing reads:  ", call.value["text"])

    try:
        support.put(("billing", customer), "invoice-1", {"amount": 0, "paid": True})
    except OutsideRules:
        print("Support writes:  refused")
    unpaid = billing.search(("billing", customer), filter={"paid": False, "amount": {"$gte": 100}})
    print("Still unpaid:   ", [item.key for item in unpaid])


if __name__ == "__main__":
    with (
        TenureStore(api_key=os.environ["BILLING_API_KEY"]) as billing,
        TenureStore(api_key=os.environ["SUPPORT_API_KEY"]) as support,
    ):
        main(billing, support)

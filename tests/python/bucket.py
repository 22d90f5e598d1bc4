"""Looks into s3://bucket, or another, and damages it: python bucket.py ENDPOINT list|read|digest|remove|flip NAME [BUCKET]"""

import hashlib
import sys

import boto3

endpoint, what, name, *other = sys.argv[1:]
bucket = (other or ["bucket"])[0]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
if what == "list":
    found = s3.list_objects_v2(Bucket=bucket, Prefix=name).get("Contents", [])
    print("\n".join(sorted(file["Key"].removeprefix(name) for file in found)))
elif what == "read":
    print(s3.get_object(Bucket=bucket, Key=name)["Body"].read().decode(), end="")
elif what == "digest":
    print(hashlib.sha256(s3.get_object(Bucket=bucket, Key=name)["Body"].read()).hexdigest())
elif what == "remove":
    s3.delete_object(Bucket=bucket, Key=name)
elif what == "flip":
    content = bytearray(s3.get_object(Bucket=bucket, Key=name)["Body"].read())
    content[len(content) // 2] ^= 1
    s3.put_object(Bucket=bucket, Key=name, Body=bytes(content))

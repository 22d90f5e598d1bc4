"""Puts a collection of shards under s3://bucket/covid, or elsewhere: python upload.py ENDPOINT FOLDER [BUCKET/PREFIX]"""

import pathlib
import sys
import time

import boto3

endpoint, folder, *place = sys.argv[1:]
bucket, _, prefix = (place or ["bucket/covid"])[0].partition("/")
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
for attempt in range(600):
    try:
        s3.create_bucket(Bucket=bucket)
        break
    except Exception:
        time.sleep(0.1)
# The index last: a training that looks meanwhile must not see half of a data set.
files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
for path in sorted(files, key=lambda path: path.name == "index.json"):
    s3.put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())

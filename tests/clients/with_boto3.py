"""boto3 does its ordinary work through the gateway, and hears about holds as errors.

Arguments: what to do. The environment is the one of `reprieve env`: a proxy, an authority, keys that are worth nothing.
"""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

CONFIG = Config(
    region_name="us-east-1",
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
    read_timeout=60,
)


def client(name):
    return boto3.client(name, config=CONFIG)


def status_of(call):
    """The HTTP status of a call that may be held."""
    try:
        return call()["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    except ResponseParserError as error:
        # Where a service speaks XML, botocore shows the gateway's answer as what it is: no XML.
        assert "/problems/held" in str(error), error
        return 403


def put_and_get():
    s3 = client("s3")
    s3.put_object(Bucket="reports", Key="2026/q1 (final).txt", Body=b"first", Metadata={"owner": "ana"}, ContentType="text/plain")
    s3.put_object(Bucket="reports", Key="2026/q1 (final).txt", Body=b"second")
    assert s3.get_object(Bucket="reports", Key="2026/q1 (final).txt")["Body"].read() == b"second"
    names = [one["Key"] for one in s3.list_objects_v2(Bucket="reports")["Contents"]]
    assert "2026/q1 (final).txt" in names, names


def reads():
    assert client("ec2").describe_instances()["Reservations"]
    assert client("dynamodb").describe_table(TableName="orders")["Table"]["TableName"] == "orders"
    assert client("dynamodb").get_item(TableName="orders", Key={"id": {"S": "o-1"}})["Item"]["total"] == {"N": "12"}
    assert client("sqs").list_queues()["QueueUrls"]
    assert client("iam").list_users()["Users"]
    assert client("sts").get_caller_identity()["Account"]


def terminate(instance):
    return status_of(lambda: client("ec2").terminate_instances(InstanceIds=[instance]))


def destroy():
    return {
        "table": status_of(lambda: client("dynamodb").delete_table(TableName="orders")),
        "queue": status_of(lambda: client("sqs").delete_queue(QueueUrl=sys.argv[2])),
        "user": status_of(lambda: client("iam").delete_user(UserName="deploy")),
        "bucket": status_of(lambda: client("s3").delete_bucket(Bucket="reports")),
        "many": status_of(lambda: client("s3").delete_objects(Bucket="reports", Delete={"Objects": [{"Key": "kept"}]})),
        "key": status_of(lambda: client("iam").create_access_key(UserName="deploy")),
    }


def presigned():
    import urllib.error
    import urllib.request

    url = client("s3").generate_presigned_url("delete_object", Params={"Bucket": "reports", "Key": "kept"})
    request = urllib.request.Request(url, method="DELETE")
    try:
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    told = {
        "put_and_get": put_and_get,
        "reads": reads,
        "terminate": lambda: terminate(sys.argv[2]),
        "destroy": destroy,
        "presigned": presigned,
    }[sys.argv[1]]()
    print(json.dumps({"told": told}))

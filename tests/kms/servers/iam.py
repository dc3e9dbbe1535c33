"""What an administrator does at IAM and STS: iam.py URL COMMAND ARGUMENT...; prints JSON where there is something to say."""

import json
import sys

import botocore.session
from botocore.config import Config

# Sessions shorter than the fifteen minutes that AWS asks for, so that a test can see one expire.
CONFIG = Config(parameter_validation=False, retries={"max_attempts": 0})
ROLE = "strongroom-test-role"


def client(service, url, id="test", secret="test"):
    return botocore.session.get_session().create_client(
        service, endpoint_url=url, region_name="us-east-1",
        aws_access_key_id=id, aws_secret_access_key=secret, config=CONFIG,
    )


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def statement(actions, **rest):
    return {"Effect": "Allow", "Action": actions, **rest}


def user(iam, name):
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


def allow(iam, name, actions):
    if actions:
        document = policy(statement(actions.split(","), Resource="*"))
        iam.put_user_policy(UserName=name, PolicyName="test", PolicyDocument=document)
    else:
        iam.delete_user_policy(UserName=name, PolicyName="test")


def session(url, iam, seconds):
    name = "strongroom-test-session"
    if not any(known["UserName"] == name for known in iam.list_users()["Users"]):
        iam.create_user(UserName=name)
        allow(iam, name, "sts:AssumeRole")
        trust = policy(statement("sts:AssumeRole", Principal={"AWS": f"arn:aws:iam::000000000000:user/{name}"}))
        iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=trust)
        keys = policy(statement("kms:*", Resource="*"))
        iam.put_role_policy(RoleName=ROLE, PolicyName="test", PolicyDocument=keys)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    sts = client("sts", url, key["AccessKeyId"], key["SecretAccessKey"])
    made = sts.assume_role(
        RoleArn=f"arn:aws:iam::000000000000:role/{ROLE}", RoleSessionName="test", DurationSeconds=int(seconds)
    )["Credentials"]
    return {"id": made["AccessKeyId"], "secret": made["SecretAccessKey"], "token": made["SessionToken"]}


def main(url, command, *arguments):
    iam = client("iam", url)
    if command == "user":
        print(json.dumps(user(iam, *arguments)))
    elif command == "allow":
        allow(iam, *arguments)
    elif command == "access-key":
        name, key, status = arguments
        iam.update_access_key(UserName=name, AccessKeyId=key, Status=status)
    elif command == "session":
        print(json.dumps(session(url, iam, *arguments)))
    else:
        sys.exit(f"there is no command {command}")


main(*sys.argv[1:])

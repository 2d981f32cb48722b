from tests.contract.api import *
import json, time
def show(label, a): print("\n==", label, a.status, json.dumps(a.body)[:2600])
def test_probe(api):
    api.apply("configmaps", "a", {"data": {"k": "v"}}, manager="one").expect(201)
    time.sleep(1.1)
    for i in range(2):
        a=api.apply("configmaps", "a", {"data": {"k": "v"}}, manager="two", dryRun="All").expect(200); print(a["metadata"])
    a=api.apply("configmaps", "a", {"data": {"k": "v"}}, manager="two").expect(200); print(a["metadata"])
    a=api.apply("configmaps", "a", {"data": {"k": "v","l":"w"}}, manager="abe").expect(200); print(a["metadata"])
    a=api.apply("configmaps", "a", {"data": {"k": "v","l":"w"}}, manager="three", dryRun="All").expect(200); print(a["metadata"])
    a=api.apply("configmaps", "a", {"data": {"k": "v","l":"w","z":"1"}}, manager="three", dryRun="All").expect(200); print(a["metadata"])
    spec = {"title": "a", "labels": {}, "tags": [], "ports": [], "words": [], "whole": {}, "free": {}}
    show("empty", api.apply("specimens", "a", {"spec": spec}))
    show("free", api.apply("specimens", "b", {"spec": {"title":"a","free":{"map": {"k": {"l": "m"}}, "none": None, "list": [{"a": 1}]}}}))
    show("free", api.apply("specimens", "b", {"spec": {"title":"a","free":{"map": {"k": {"l": "n"}}}}}))
    show("free2", api.apply("specimens", "b", {"spec": {"title":"a","free":{"map": {"k": {"z": "n"}}}}}, manager="other"))
    show("free3", api.apply("specimens", "b", {"spec": {"title":"a"}}))
    show("null cm", api.apply("configmaps", "nn", {"data": {"k": None, "l":"x"}}))
    show("null smd", api.apply("deployments", "nn", {"spec": {"replicas": None}}))
    show("null merge create", api.create("flinkdeployments", "nn", {"spec": {"image": None}}))
    show("nullable", api.apply("specimens", "n", {"spec": {"title":"a","nothing":None,"size":None}}))
    show("nullable", api.apply("specimens", "n", {"spec": {"title":"a","nothing":None}}))
    show("PUT coll fd", api.send("PUT",api.path("flinkdeployments"),{}))
    show("DELETE coll fd", api.send("PATCH",api.path("flinkdeployments"),{},content_type=MERGE))
    show("POST to item", api.send("POST",api.path("flinkdeployments","a"),{}))
    show("POST to item cm", api.send("POST",api.path("configmaps","a"),{}))
    for q in ("0.1m","1.0005","100000m","1Ei","1_0","x","-1","1e-3","5E","0.0001Gi","1500000Ki","3.0","1000Ki","1024Ki","1000000", "128974848", "129e6","129M","1.1","1.0Gi","1.5","+5","05"):
        a=api.apply("deployments", "q", {"spec": {"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"m","image":"i","resources":{"limits":{"memory":q}}}]}}}})
        print(q, a.status, a.body["spec"]["template"]["spec"]["containers"][0]["resources"] if a.status in(200,201) else a.body["message"][:300])
    show("scale get", api.get("deployments","q","scale")); 
    show("finalizer", api.create("configmaps","fin",{"metadata":{"finalizers":["x.test/a"]}})); api.delete("configmaps","fin")
    show("add fin", api.merge("configmaps","fin",{"metadata":{"finalizers":["x.test/a","x.test/b"]}}))
    show("ser ann", api.create("configmaps","ann",{"metadata":{"annotations":{"a":1}}}))
    show("apply ann int", api.apply("configmaps","ann",{"metadata":{"annotations":{"a":1}}}))
    show("apply label bad", api.apply("configmaps","ann",{"metadata":{"labels":{"a":"b c"}}}))
    show("SA secrets", api.apply("serviceaccounts","sa",{"secrets":[{"name":"a"}],"imagePullSecrets":[{"name":"b"}]}))
    show("bad manager", api.apply("configmaps","m",{}, manager="x"*200))
